"""A hub on this machine: it answers the requests of `huggingface_hub` from memory, with the faults of networks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

GOOD_TOKEN = "hf_goodTokenOfTheTests"


@dataclass
class Repository:
    """What a repository holds, commit by commit."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    main: str = ""

    def commit(self, files, name=None):
        """Add files to those of the last commit; return the name of the new commit."""
        held = self.commits.get(self.main, {}) | files
        name = name or hashlib.sha1(repr((len(self.commits), sorted(held))).encode()).hexdigest()
        self.commits[name], self.main = held, name
        return name


@dataclass
class Faults:
    """What goes wrong: reset it with `Faults()`."""

    status: int | None = None  # of every answer
    broken: int = 0  # the connection of this many downloads is closed in the middle; later ones are refused
    short: bool = False  # downloads are half as long, and end well, as behind a proxy
    corrupt: bool = False  # one byte of each download is another


@dataclass
class Hub:
    """A running hub."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, name, files, *, private=False, commit=None):
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit(files, commit)


@contextmanager
def running():
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.faults.status is not None:
            return self._refuse(self.hub.faults.status)
        for pattern, answer in self._ROUTES:
            if found := re.fullmatch(pattern, path):
                return answer(self, *found.groups())
        return self._refuse(404)

    # --- What is read

    def _info(self, name, revision):
        if (repository := self._readable(name)) is None:
            return None
        commit = repository.main if revision in (None, "main") else revision
        if commit not in repository.commits:
            return self._refuse(404, "RevisionNotFound")
        siblings = [_sibling(file, content) for file, content in repository.commits[commit].items()]
        return self._json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def _file(self, name, revision, file):
        if (repository := self._readable(name)) is None:
            return None
        commit = repository.main if revision == "main" else revision
        held = repository.commits.get(commit)
        if held is None:
            return self._refuse(404, "RevisionNotFound")
        if file not in held:
            return self._refuse(404, "EntryNotFound", commit)
        return self._content(held[file], commit)

    def _content(self, content, commit):
        faults = self.hub.faults
        digest = hashlib.sha256(content).hexdigest()
        if self.command == "GET":
            if faults.broken < 0:
                return self._refuse(503)
            if faults.corrupt:
                content = content[:-1] + bytes([content[-1] ^ 1])
        size = len(content)
        if self.command == "GET" and faults.short:
            content = content[: size // 2]
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET" and faults.broken:
            faults.broken = faults.broken - 1 or -1
            content, self.close_connection = content[: len(content) // 2], True
        if self.command == "GET":
            self.wfile.write(content)
        return None

    def _readable(self, name):
        """Return a repository that the sender may read; otherwise answer as the hub does."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", GOOD_TOKEN):
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not token):
            self._refuse(401 if not token else 404, "RepoNotFound")
        else:
            return repository
        return None

    # --- What is written

    def _create(self):
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._may_write():
            return self._refuse(401, message="Invalid credentials in Authorization header")
        if name in self.hub.repositories:
            return self._json({"url": f"{self.hub.url}/{name}"}, 409)
        self.hub.add(
            name, {".gitattributes": b"*.safetensors filter=lfs"}, private=wanted.get("visibility") == "private"
        )
        return self._json({"url": f"{self.hub.url}/{name}"})

    def _preupload(self, _name):
        asked = json.loads(self.body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked
        ]
        return self._json({"files": modes})

    def _batch(self, _name):
        objects = json.loads(self.body)["objects"]
        actions = [o | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}} for o in objects]
        return self._json({"transfer": "basic", "objects": actions})

    def _store(self, oid):
        self.hub.uploaded[oid] = self.body
        return self._json({})

    def _commit(self, name):
        if not self._may_write():
            return self._refuse(403)
        files = {}
        for line in self.body.splitlines():
            part = json.loads(line)
            if part["key"] == "file":
                files[part["value"]["path"]] = base64.b64decode(part["value"]["content"])
            elif part["key"] == "lfsFile":
                files[part["value"]["path"]] = self.hub.uploaded[part["value"]["oid"]]
        commit = self.hub.repositories[name].commit(files)
        return self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _may_write(self):
        return self.headers.get("Authorization") == f"Bearer {GOOD_TOKEN}"

    # --- Answers

    def _json(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refuse(self, status, code=None, commit=None, message=None):
        """Answer with an error that repeats the token, as a careless server does."""
        text = json.dumps({"error": f"refused {self.headers.get('Authorization')}"}).encode()
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", commit), ("X-Error-Message", message)):
            if value is not None:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    _ROUTES: ClassVar = [
        (r"/api/repos/create", _create),
        (r"/api/validate-yaml", lambda self: self._json({"warnings": [], "errors": []})),
        (r"/api/models/([^/]+/[^/]+)/preupload/main", _preupload),
        (r"/api/models/([^/]+/[^/]+)/commit/main", _commit),
        (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", _info),
        (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
        (r"/lfs/(\w+)", _store),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _file),
    ]


def _sibling(file, content):
    """Describe a file as the hub does; weights lie in Git LFS."""
    described = {"rfilename": file, "size": len(content)}
    if file.endswith(".safetensors"):
        described["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return described
