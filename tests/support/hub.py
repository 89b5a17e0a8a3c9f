"""A stand-in for the hub: the part of its HTTP interface that an upload uses.

Repositories and blobs are kept in memory. It can lose connections, and refuse.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stand-in holds, what was asked of it, and how it is to fail.

    Attributes:
        url: Its address.
        repositories: The files of each repository, by hub id.
        blobs: Content of large files by SHA-256, committed or not.
        received: SHA-256 of every blob that was sent whole, in order.
        blobs_left: Number of further blobs that arrive before connections break; None: all do.
        refusal: Status of the answer to whatever is not storage; None: it works.
        commits: Number of commits.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    blobs_left: int | None = None
    refusal: int | None = None
    commits: int = 0

    async def create(self, request: Request) -> Response:
        """Make a repository; one that exists is a conflict, which the client may accept."""
        if self.refusal in (401, 403):
            return JSONResponse({"error": "you may not"}, self.refusal)
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.repositories
        self.repositories.setdefault(name, {".gitattributes": b""})
        return JSONResponse({"url": f"{self.url}/{name}"}, 409 if known else 200)

    async def validate(self, request: Request) -> Response:
        """Check the metadata of a card, as far as it must be there."""
        content = (await request.json())["content"]
        problems = [] if content.startswith("---\n") else [{"message": "no metadata"}]
        return JSONResponse({"errors": problems, "warnings": []})

    async def tree(self, request: Request) -> Response:
        """List a repository's files."""
        files = self.repositories[_repository(request)]
        return JSONResponse(
            [
                {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                for path, content in files.items()
            ]
        )

    async def preupload(self, request: Request) -> Response:
        """Say which files are large; safetensors are, as on the hub."""
        files = (await request.json())["files"]
        modes = {True: "lfs", False: "regular"}
        return JSONResponse(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": modes[file["path"].endswith(".safetensors")],
                        "shouldIgnore": False,
                    }
                    for file in files
                ]
            }
        )

    async def batch(self, request: Request) -> Response:
        """Git LFS: where to send the blobs that are not here yet."""
        objects = []
        for blob in (await request.json())["objects"]:
            answer = {"oid": blob["oid"], "size": blob["size"]}
            if blob["oid"] not in self.blobs:
                answer["actions"] = {"upload": {"href": f"{self.url}/storage/{blob['oid']}"}}
            objects.append(answer)
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def store(self, request: Request) -> Response:
        """Take a blob, or break the connection in the midst of it."""
        if self.blobs_left == 0:
            return _Broken()
        if self.blobs_left:  # before waiting: the client sends several at once
            self.blobs_left -= 1
        content = await request.body()
        oid = request.path_params["oid"]
        if hashlib.sha256(content).hexdigest() != oid:
            return Response(status_code=400)
        self.received.append(oid)
        self.blobs[oid] = content
        return Response()

    async def commit(self, request: Request) -> Response:
        """Apply all changes of a commit at once."""
        if self.refusal == 409:
            return JSONResponse({"error": "the branch has moved"}, 409)
        files = dict(self.repositories[_repository(request)])
        for line in (await request.body()).splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
        self.repositories[_repository(request)] = files
        self.commits += 1
        address = f"{self.url}/{_repository(request)}/commit/{COMMIT}"
        return JSONResponse({"success": True, "commitOid": COMMIT, "commitUrl": address})

    def routes(self) -> list[Route]:
        """The paths of the hub that an upload uses."""
        api = "/api/models/{owner}/{name}"
        post: dict[str, Any] = {"methods": ["POST"]}
        return [
            Route("/api/repos/create", self.create, **post),
            Route("/api/validate-yaml", self.validate, **post),
            Route(f"{api}/tree/main", self.tree),
            Route(f"{api}/preupload/main", self.preupload, **post),
            Route("/{owner}/{name}.git/info/lfs/objects/batch", self.batch, **post),
            Route("/storage/{oid}", self.store, methods=["PUT"]),
            Route(f"{api}/commit/main", self.commit, **post),
        ]


class _Broken(Response):
    """An answer that ends before it is complete, with the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        raise ConnectionError


def _repository(request: Request) -> str:
    return f"{request.path_params['owner']}/{request.path_params['name']}"


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A stand-in on a free port, in a thread of its own."""
    hub = Hub()
    listener = socket.create_server(("127.0.0.1", 0))
    hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(Starlette(routes=hub.routes()), log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield hub
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
