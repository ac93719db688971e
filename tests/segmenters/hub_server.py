"""A server on this machine that answers as huggingface.co does for one repository."""

import hashlib
import json
import re

from server import HALF, Handler, Server

REPOSITORY = "owner/name"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class HubHandler(Handler):
    def do_HEAD(self) -> None:
        self.server.answer(self)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.start(status, len(content), **headers)
        if self.command == "GET":
            self.wfile.write(content)


class HubServer(Server):
    """Serves `files`, a dictionary of contents by name, as `REVISION` of `REPOSITORY`.

    error: the hub's name of an error that every request gets. listed: other contents than those
    that are served, by name, for the hashes in the list. cut: the files of which the first request
    gets the first half. requested: the names of the requested files.
    """

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = HubHandler
        self.answer = self.respond
        self.error: str | None = None
        self.listed: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.requested: list[str] = []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def respond(self, request: HubHandler) -> None:
        path = request.path.partition("?")[0]
        if self.error:
            status = 403 if self.error == "GatedRepo" else 404
            request.send(status, b"{}", **{"X-Error-Code": self.error})
        elif re.fullmatch(rf"/api/models/{REPOSITORY}(/revision/{REVISION})?", path):
            entries = [{"rfilename": name, **self.entry(name)} for name in self.files]
            content = {"id": REPOSITORY, "sha": REVISION, "siblings": entries}
            request.send(200, json.dumps(content).encode())
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            request.send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        elif path == f"/api/models/{REPOSITORY}/tree/{REVISION}":
            entries = [{"type": "file", "path": name, **self.entry(name)} for name in self.files]
            request.send(200, json.dumps(entries).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/{REVISION}/"):
            self.send_file(request, path.rpartition("/")[2])
        else:
            request.send(404, b"{}")

    def entry(self, name: str) -> dict:
        content = self.listed.get(name, self.files[name])
        entry = {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            hashed = sha256(content)
            lfs = {"sha256": hashed, "oid": hashed, "size": len(content), "pointerSize": 130}
            entry["lfs"] = lfs
        return entry

    def send_file(self, request: HubHandler, name: str) -> None:
        content = self.files[name]
        headers = {"ETag": f'"{sha256(content)}"', "X-Repo-Commit": REVISION}
        status = 200
        if request.command == "GET":
            self.requested.append(name)
            if request.headers["Range"]:
                status, rest = 206, request.rest
                first, last = len(content) - len(rest), len(content) - 1
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content = rest
            if name in self.cut:
                self.cut.remove(name)
                request.start(status, len(content), **headers)
                request.wfile.write(content[:HALF])
                return
        request.send(status, content, **headers)
