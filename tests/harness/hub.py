"""A model hub's look-alike on loopback: descriptions, gates, redirects to a second server, ranges; and faults on demand."""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

_PIECE = 4_096
_LARGE = (".safetensors", ".bin")


class Cut(Exception):
    """Raised in mid-answer: the server closes the connection."""


@dataclass
class Repo:
    """A model on the hub: branches, commits, files; who may have it."""

    files: dict[str, dict[str, bytes]]
    """Branch -> name -> content."""
    licence: str | None = "apache-2.0"
    gated: bool = False
    members: set[str] = field(default_factory=set)
    """Tokens whose accounts agreed to the gate."""

    def commit(self, branch: str) -> str:
        """As git has it: another content, another commit."""
        digest = hashlib.sha1(branch.encode(), usedforsecurity=False)
        for name, content in sorted(self.files[branch].items()):
            digest.update(name.encode() + hashlib.sha256(content).digest())
        return digest.hexdigest()

    def branch_of(self, revision: str) -> str | None:
        """The branch that a name or commit means."""
        return next((branch for branch in self.files if revision in (branch, self.commit(branch))), None)


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    host: str
    token: str | None
    range: str | None
    agent: str


@dataclass
class FakeHub:
    """What the look-alike holds, and how it misbehaves. `models` may be changed while it runs."""

    models: dict[str, Repo] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """File name -> after how many bytes each of its next answers breaks off."""
    answers: dict[str, list[int]] = field(default_factory=dict)
    """File name -> statuses that its next answers have instead."""
    spoilt: dict[str, bytes] = field(default_factory=dict)
    """File name -> what is served in its place."""
    deaf_to_ranges: bool = False
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    cdn: str = ""
    _blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(self, id_: str, directory: Path, *, branch: str = "main", **more: Any) -> Repo:
        """Publish a directory under an id, or as another branch of it."""
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
        repo = self.models.setdefault(id_, Repo({}, **more))
        repo.files[branch] = files
        return repo

    def paths(self, method: str = "GET") -> list[str]:
        """The paths that were asked for."""
        return [seen.path for seen in self.seen if seen.method == method]

    def app(self) -> Starlette:
        """The hub and its second server in one: which of the two is asked shows in the path."""
        return Starlette(
            routes=[
                Route("/api/models/{id:path}/revision/{revision:path}", self._describe),
                Route("/api/models/{id:path}", self._describe),
                Route("/cdn/{digest}/{name}", self._blob),
                Route("/{owner}/{name}/resolve/{revision}/{file:path}", self._resolve, methods=["GET", "HEAD"]),
            ]
        )

    def _note(self, request: Request) -> None:
        headers = request.headers
        token = headers.get("authorization", "").removeprefix("Bearer ") or None
        self.seen.append(
            Seen(
                request.method, request.url.path, headers.get("host", ""), token, headers.get("range"),
                headers.get("user-agent", ""),
            )
        )  # fmt: skip

    async def _describe(self, request: Request) -> Response:
        self._note(request)
        id_ = request.path_params["id"]
        repo = self.models.get(id_)
        if repo is None:
            return _refusal(401, "RepoNotFound", "Invalid username or password.")
        branch = repo.branch_of(request.path_params.get("revision", "main"))
        if branch is None:
            return _refusal(404, "RevisionNotFound", "Invalid rev id")
        siblings = []
        for name, content in repo.files[branch].items():
            sibling: dict[str, Any] = {"rfilename": name}
            if "blobs" in request.query_params:
                sibling |= {"size": len(content), "blobId": _git_sum(content)}
                if name.endswith(_LARGE):
                    sibling["lfs"] = {
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "size": len(content),
                        "pointerSize": 134,
                    }
            siblings.append(sibling)
        said: dict[str, Any] = {
            "_id": "0", "id": id_, "modelId": id_, "sha": repo.commit(branch), "private": False, "disabled": False,
            "gated": "auto" if repo.gated else False, "downloads": 1, "likes": 0, "tags": [], "siblings": siblings,
        }  # fmt: skip
        said["cardData"] = None if repo.licence is None else {"license": repo.licence}
        return JSONResponse(said)

    async def _resolve(self, request: Request) -> Response:
        self._note(request)
        params = request.path_params
        repo = self.models.get(f"{params['owner']}/{params['name']}")
        if repo is None:
            return _refusal(401, "RepoNotFound", "Repository not found")
        if repo.gated and (token := self.seen[-1].token) not in repo.members:
            return _refusal(401 if token is None else 403, "GatedRepo", "Access to this model is restricted.")
        branch = repo.branch_of(params["revision"])
        if branch is None:
            return _refusal(404, "RevisionNotFound", "Invalid rev id")
        name = params["file"]
        content = repo.files[branch].get(name)
        if content is None:
            return _refusal(404, "EntryNotFound", "Entry not found")
        headers = {"x-repo-commit": repo.commit(branch), "accept-ranges": "bytes"}
        if not name.endswith(_LARGE):
            return self._content(request, name, content, headers | {"etag": f'"{_git_sum(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        self._blobs[digest] = name, content
        headers |= {"x-linked-size": str(len(content)), "x-linked-etag": f'"{digest}"'}
        return RedirectResponse(f"{self.cdn}/cdn/{digest}/{name}", 302, headers)

    async def _blob(self, request: Request) -> Response:
        self._note(request)
        name, content = self._blobs[request.path_params["digest"]]
        return self._content(request, name, content, {"etag": f'"{request.path_params["digest"]}"'})

    def _content(self, request: Request, name: str, content: bytes, headers: dict[str, str]) -> Response:
        if request.method == "HEAD":
            return Response(headers=headers | {"content-length": str(len(content))})
        if statuses := self.answers.get(name):
            return Response(status_code=statuses.pop(0))
        content = self.spoilt.get(name, content)
        start, status = 0, 200
        asked = request.headers.get("range")
        if asked is not None and not self.deaf_to_ranges:
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers |= {"content-range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        cuts = self.cuts.get(name)
        cut = cuts.pop(0) if cuts else None
        headers |= {"content-length": str(len(content) - start)}
        return StreamingResponse(_pieces(content[start:], cut), status, headers)


async def _pieces(content: bytes, cut: int | None) -> AsyncIterator[bytes]:
    end = len(content) if cut is None else min(cut, len(content))
    for at in range(0, end, _PIECE):
        yield content[at : min(at + _PIECE, end)]
    if cut is not None:
        raise Cut


@contextmanager
def serving(hub: FakeHub, certificates: tuple[Path, Path] | None = None) -> Iterator[FakeHub]:
    """Serve a hub, and its second server at another port, until the end of the block.

    `certificates` (key, chain) make it speak TLS.
    """
    app = hub.app()
    with _listening(app, certificates) as port, _listening(app, certificates) as other:
        scheme = "http" if certificates is None else "https"
        hub.url, hub.cdn = (f"{scheme}://127.0.0.1:{number}" for number in (port, other))
        yield hub


@contextmanager
def _listening(app: Starlette, certificates: tuple[Path, Path] | None) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)  # who comes before the server is up waits
        key, chain = certificates or (None, None)
        config = uvicorn.Config(app, log_level="critical", ssl_keyfile=key, ssl_certfile=chain, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@dataclass
class Proxy:
    """A proxy as companies have them: it alone reaches the hub, whatever name that has. CONNECT only."""

    port: int
    tunnels: list[str] = field(default_factory=list)
    """`host:port` of each connection that was asked for."""


@contextmanager
def proxying(target: int) -> Iterator[Proxy]:
    """A proxy whose every tunnel ends at the loopback port `target`."""

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method, name, _ = self.rfile.readline().decode().split(" ", 2)
            while self.rfile.readline().strip():
                pass
            proxy.tunnels.append(name)
            if method != "CONNECT":
                self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", target)) as other:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(other, self.connection), daemon=True)
                back.start()
                _pump(self.connection, other)
                back.join(10)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Tunnel) as server:
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def certificates_for(host: str, folder: Path) -> tuple[tuple[Path, Path], Path]:
    """A certificate for `host` of an authority that nobody knows; -> (its key and chain, the authority's certificate)."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(host)
    key, chain, root = folder / "key.pem", folder / "chain.pem", folder / "authority.pem"
    issued.private_key_pem.write_to_path(str(key))
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(chain), append=number > 0)
    authority.cert_pem.write_to_path(str(root))
    ssl.create_default_context(cafile=root)
    return (key, chain), root


def _refusal(status: int, code: str, message: str) -> Response:
    return Response(
        json.dumps({"error": message}),
        status,
        {"x-error-code": code, "x-error-message": message, "content-type": "application/json"},
    )


def _git_sum(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
