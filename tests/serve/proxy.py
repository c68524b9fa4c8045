"""A reverse proxy with TLS in front of a server, as nginx and its like are set up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest


def make_certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Make a certificate that a name signs for itself."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl here, which makes the certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    words += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Proxy:
    """Hands requests below a path on to a server, one in each connection to it, WebSockets too.

    Args:
        netloc: of the server.
        tls: the certificate.
        prefix: the path.
        keeps_prefix: whether the server sees the path with it.
        keeps_host: whether the server sees the name that the browser asked for, or its own.
    """

    def __init__(self, netloc, tls, *, prefix, keeps_prefix, keeps_host):
        self.netloc, self.prefix = netloc, prefix
        self.keeps_prefix, self.keeps_host = keeps_prefix, keeps_host
        self.tls = tls

    def __enter__(self):
        # In a thread of its own, since Playwright keeps this one's event loop.
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        starting = asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result()
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *how):
        async def end():
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            host, port = self.netloc.split(":")
            behind, to_server = await asyncio.open_connection(host, int(port))
            to_server.write(self.rewritten(head.decode("latin-1")).encode("latin-1"))
            await asyncio.wait(
                [asyncio.create_task(pump(reader, to_server)), asyncio.create_task(pump(behind, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            to_server.close()
        with contextlib.suppress(OSError):
            writer.close()

    def rewritten(self, head):
        request, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
        method, path, version = request.split(" ")
        if not self.keeps_prefix:
            path = path.removeprefix(self.prefix) or "/"
        if not self.keeps_host:
            headers = [f"Host: {self.netloc}" if line.lower().startswith("host:") else line for line in headers]
        if not any(line.lower().startswith("upgrade:") for line in headers):
            headers = [line for line in headers if not line.lower().startswith("connection:")] + ["Connection: close"]
        return "\r\n".join([f"{method} {path} {version}", *headers, "", ""])


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
