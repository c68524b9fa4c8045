"""The address of the page: the host names that the server accepts, and the path prefix."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from saccade.errors import UsageError

_NETLOC = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\s\[\]:/?#@\\]+)(?::(?P<port>\d{1,5}))?", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*")
# An address without a port means the first of them without TLS, the second with TLS.
_STANDARD_PORTS = (80, 443)


@dataclass(frozen=True)
class Name:
    """A host name that the server accepts, with any port or with a single one.

    Args:
        host: the name in lower case; IPv6 addresses without brackets.
        port: the only accepted port; None accepts all ports.
    """

    host: str
    port: int | None = None

    def covers(self, host: str, port: int | None) -> bool:
        """Return whether this name accepts a host and a port; a missing port means 80 or 443."""
        if host != self.host:
            return False
        return self.port in (None, port) or (port is None and self.port in _STANDARD_PORTS)


def parse_name(text: str) -> Name:
    """Parse a value of the option `--allow-host`: `NAME` or `NAME:PORT`.

    A name with non-ASCII letters is encoded as browsers send it (IDNA).

    Raises:
        UsageError: if the text has another form, such as that of a URL or a pattern.

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
    """Split `HOST`, `HOST:PORT` or `[IPV6]:PORT` into the host and the port; a missing port is None.

    The host is returned in lower case and without a trailing dot.

    Raises:
        ValueError: if the text has another form.

    >>> split_netloc("LAB.example.:80"), split_netloc("[::1]")
    (('lab.example', 80), ('::1', None))
    """
    found = _NETLOC.fullmatch(text)
    if found is None or (port := int(found["port"] or 0)) > 65535:
        raise ValueError(f"{text!r} is not a host with an optional port")
    host = found["host"].lower().removesuffix(".").strip("[]")
    return host, port if found["port"] else None


def own_names(host: str) -> tuple[Name, ...]:
    """Return the host names that a server on `host` accepts in addition to IP addresses.

    >>> own_names("127.0.0.1")
    (Name(host='localhost', port=None), Name(host='127.0.0.1', port=None))
    """
    names = ["localhost", host.lower()]
    if not _is_loopback(host):
        own = socket.gethostname().lower()
        names += [own, f"{own}.local"]
    return tuple(map(Name, names))


def is_among(netloc: str, names: Iterable[Name]) -> bool:
    """Return whether a host, perhaps with a port, is one of the names."""
    try:
        host, port = split_netloc(netloc)
    except ValueError:
        return False
    return any(name.covers(host, port) for name in names)


def is_address(netloc: str) -> bool:
    """Return whether a host, perhaps with a port, is an IP address: to let a foreign name lead here needs a name."""
    try:
        ipaddress.ip_address(split_netloc(netloc)[0])
    except ValueError:
        return False
    return True


def parse_prefix(text: str) -> str:
    """Parse the option `--path-prefix` into a path with a leading slash and no trailing slash; empty for no prefix.

    Raises:
        UsageError: if a part is empty, `.` or `..`, or contains characters other than letters, digits and `._~-`.

    >>> parse_prefix("saccade/"), parse_prefix("/"), parse_prefix("/demo/saccade")
    ('/saccade', '', '/demo/saccade')
    """
    if text in ("", "/"):
        return ""
    prefix = ("" if text.startswith("/") else "/") + text.removesuffix("/")
    if not _PATH.fullmatch(prefix):
        raise UsageError(
            f"--path-prefix takes a path of letters, digits and the characters . _ ~ -, as in /saccade; got {text!r}"
        )
    return prefix


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
