"""Where the page is found: the names that the server answers to, and the path below which it lies."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from saccade.errors import UsageError

_NETLOC = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\s\[\]:/?#@\\]+)(?::(?P<port>\d{1,5}))?", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*")
# Which of them an address without a port means depends on whether there is TLS.
_STANDARD_PORTS = (80, 443)


@dataclass(frozen=True)
class Name:
    """A host name that is the server's, at every port or at one.

    Args:
        host: in lower case; IPv6 addresses without brackets.
        port: the only port, or None for all.
    """

    host: str
    port: int | None = None

    def covers(self, host: str, port: int | None) -> bool:
        """Tell whether a host and a port are meant; without a port it is one of the standard ports."""
        if host != self.host:
            return False
        return self.port in (None, port) or (port is None and self.port in _STANDARD_PORTS)


def parse_name(text: str) -> Name:
    """Read a name of the option `--allow-host`: `NAME` or `NAME:PORT`.

    Letters beyond ASCII become what browsers send in their place.

    Raises:
        UsageError: something else, such as a URL or a pattern.

    >>> parse_name("Lab.example:8443"), parse_name("lab.example.").host
    (Name(host='lab.example', port=8443), 'lab.example')
    """
    try:
        host, port = split_netloc(text if text.isascii() else text.encode("idna").decode("ascii"))
        return Name(host if _HOST.fullmatch(host) else str(ipaddress.ip_address(host)), port)
    except ValueError as error:
        example = "lab.example or lab.example:8443"
        raise UsageError(
            f"--allow-host takes a host name with or without a port, as in {example}; got {text!r}"
        ) from error


def split_netloc(text: str) -> tuple[str, int | None]:
    """Split `HOST`, `HOST:PORT` or `[IPV6]:PORT` into the host in lower case, without a dot at its end, and the port.

    Raises:
        ValueError: something else.

    >>> split_netloc("LAB.example.:80"), split_netloc("[::1]")
    (('lab.example', 80), ('::1', None))
    """
    found = _NETLOC.fullmatch(text)
    if found is None or (port := int(found["port"] or 0)) > 65535:
        raise ValueError(f"{text!r} is no host and port")
    host = found["host"].lower().removesuffix(".").strip("[]")
    return host, port if found["port"] else None


def own_names(host: str) -> tuple[Name, ...]:
    """Return the names under which a server that listens at `host` may be called, besides plain addresses.

    >>> own_names("127.0.0.1")
    (Name(host='localhost', port=None), Name(host='127.0.0.1', port=None))
    """
    names = ["localhost", host.lower()]
    if not _is_loopback(host):
        own = socket.gethostname().lower()
        names += [own, f"{own}.local"]
    return tuple(map(Name, names))


def parse_prefix(text: str) -> str:
    """Read the option `--path-prefix`: a slash before every part and none at the end; empty for no prefix.

    Raises:
        UsageError: a part that is empty, or holds more than letters, digits and `._~-`.

    >>> parse_prefix("saccade/"), parse_prefix("/"), parse_prefix("/demo/saccade")
    ('/saccade', '', '/demo/saccade')
    """
    if text in ("", "/"):
        return ""
    prefix = ("" if text.startswith("/") else "/") + text.removesuffix("/")
    if not _PATH.fullmatch(prefix):
        raise UsageError(
            f"--path-prefix takes a path of letters, digits and the marks . _ ~ -, as in /saccade; got {text!r}"
        )
    return prefix


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
