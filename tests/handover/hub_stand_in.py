"""A stand-in for the hub: the few calls that the real client makes when it pushes, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_write"
LARGE = (".safetensors", ".npz", ".pt")


class Hub:
    """What the stand-in holds, and what it was asked.

    Attributes
    ----------
    repositories : dict of str to dict
        By name: ``private``, and ``branches``, the files of each by name.
    blobs : dict of str to bytes
        Large files by their sha256.
    calls : list of str
        Method and path of each request.
    refuse : callable(method, path), optional
        Returns a status and a message for a request that is to fail.
    role : str
        Of the token.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.commits = 0
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.role = "write"
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                pass

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                path = self.path
                if path != "/api/agent-harnesses":  # the client asks it of some environments
                    hub.calls.append(f"{self.command} {path}")
                headers: dict[str, str] = {}
                refused = hub.refuse(self.command, path)
                if refused:
                    status, value = refused[0], {"error": refused[1]}
                elif (
                    not path.startswith("/lfs/")
                    and self.headers.get("authorization") != f"Bearer {TOKEN}"
                ):
                    status, value = 401, {"error": "Invalid credentials in Authorization header"}
                else:
                    status, value, headers = hub.answer(self.command, path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                if status >= 400 and "error" in value:
                    self.send_header("X-Error-Message", value["error"])
                for key, text in headers.items():
                    self.send_header(key, text)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """Return the files of a branch."""
        return self.repositories[name]["branches"][branch]["files"]

    def sent(self) -> int:
        """Return how many large files were sent."""
        return sum(call.startswith("PUT /lfs/") for call in self.calls)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers of a call."""
        path, _, query = path.partition("?")
        if path == "/api/whoami-v2":
            token = {"displayName": "tests", "role": self.role}
            return 200, {"name": "me", "type": "user", "auth": {"accessToken": token}}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "You already created this model repo"}, {}
            private = asked.get("private") or asked.get("visibility") == "private"
            self.repositories[name] = {"private": bool(private), "branches": {}}
            self.commit(name, "main", {".gitattributes": b"*.npz filter=lfs\n"})
            return 200, {"url": f"{self.url}/{name}", "name": name}, {}
        if path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = body
            return 200, {}, {}
        large = re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path)
        if large:
            objects = [self._object(one) for one in json.loads(body)["objects"]]
            return 200, {"transfer": "basic", "objects": objects}, {}
        called = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/(.+))?", path)
        if called is None:
            return 404, {"error": "Not found"}, {}
        name, what, branch = called[1], called[2], (called[3] or "main").replace("%2F", "/")
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        branches = self.repositories[name]["branches"]
        if what == "branch":
            branches[branch] = dict(branches["main"])
            return 200, {}, {}
        if branch not in branches:
            return 404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"}
        if method == "GET":
            siblings = [{"rfilename": file} for file in branches[branch]["files"]]
            private, sha = self.repositories[name]["private"], branches[branch]["sha"]
            return 200, {"id": name, "private": private, "sha": sha, "siblings": siblings}, {}
        if what == "preupload":
            files = [self._mode(one) for one in json.loads(body)["files"]]
            return 200, {"files": files}, {}
        assert what == "commit", path
        return self._commit(name, branch, body, "create_pr" in query)

    def commit(self, name: str, branch: str, files: dict[str, bytes]) -> str:
        """Put files on a branch, and return the commit's id."""
        self.commits += 1
        sha = hashlib.sha1(str(self.commits).encode()).hexdigest()
        self.repositories[name]["branches"][branch] = {"files": files, "sha": sha}
        return sha

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.blobs:
            return dict(asked)
        return {**asked, "actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}

    def _mode(self, asked: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if asked["path"].endswith(LARGE) else "regular"
        return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}

    def _commit(
        self, name: str, branch: str, body: bytes, pull_request: bool
    ) -> tuple[int, Any, dict[str, str]]:
        lines = [json.loads(line) for line in body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != self.repositories[name]["branches"][branch]["sha"]:
            return 412, {"error": "A commit has happened since"}, {}
        files = dict(self.files(name, branch))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        to = "refs/pr/1" if pull_request else branch
        sha = self.commit(name, to, files)
        url = f"{self.url}/{name}/discussions/1" if pull_request else None
        answer = {"success": True, "commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha}
        return 200, {**answer, "pullRequestUrl": url}, {}
