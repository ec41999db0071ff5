"""A small Hugging Face Hub on loopback: what huggingface_hub asks to download, to make a model and to commit to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
INFO = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+?)(/(?P<what>revision|tree|preupload|branch|commit)/(?P<revision>[^/]+))?"
)


class Hub:
    """The models of a server.

    Attributes:
        models: name -> branch -> file -> contents.
        private: names of models that were made private.
        commits: (name, branch, title) of each commit.
        asked: (method, path) of each request.
        token: of the account "owner", who may make models and commit.
    """

    token = "hf_of_the_owner"

    def __init__(self) -> None:
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: list[str] = []
        self.commits: list[tuple[str, str, str]] = []
        self.asked: list[tuple[str, str]] = []
        self.large: dict[str, bytes] = {}  # sha256 -> contents
        self.endpoint = ""

    def add(self, name: str, files: dict[str, bytes], branch: str = "main") -> None:
        self.models.setdefault(name, {})[branch] = dict(files)

    def environment(self, home) -> dict[str, str]:
        """Variables of a process that uses this server, and a cache and an account of its own."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": self.token,
        }
        return {**variables, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Name of a commit, and its files."""
        for branch, files in self.models[name].items():
            sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
            if revision in (branch, sha):
                return sha, files
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        pass

    def answer(self, content=b"", code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, code: int, kind: str = "") -> None:
        self.answer({"error": kind}, code, **({"X_Error_Code": kind} if kind else {}))

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:  # noqa: N802
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        found = FILE.fullmatch(path) or INFO.fullmatch(path)
        if found is None or found["repo"] not in self.hub.models:
            return self.fail(404, "RepoNotFound")
        commit = self.hub.commit_of(found["repo"], found["revision"] or "main")
        if commit is None:
            return self.fail(404, "RevisionNotFound")
        sha, files = commit
        if "path" not in found.groupdict():
            if found["what"] == "tree":
                return self.answer([{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in files.items()])
            about = {"id": found["repo"], "sha": sha, "private": False, "downloads": 0, "likes": 0, "tags": []}
            return self.answer({**about, "siblings": [{"rfilename": name} for name in files]})
        if found["path"] not in files:
            return self.fail(404, "EntryNotFound")
        contents = files[found["path"]]
        self.answer(contents, ETag=f'"{hashlib.sha1(contents).hexdigest()}"', X_Repo_Commit=sha)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:  # noqa: N802
        self.hub.large[self.path.rpartition("/")[2]] = self.body()
        self.answer()

    def do_POST(self) -> None:  # noqa: N802
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.asked.append((self.command, path))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.fail(401)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.hub.endpoint}/large/{item['oid']}"}}
            return self.answer({"transfer": "basic", "objects": objects})
        found = INFO.fullmatch(path)
        if found is None or found["repo"] not in self.hub.models:
            return self.fail(404, "RepoNotFound")
        if found["what"] == "preupload":
            files = [{**file, "shouldIgnore": False} for file in json.loads(body)["files"]]
            for file in files:
                file["uploadMode"] = "lfs" if file["path"].endswith((".safetensors", ".onnx")) else "regular"
            return self.answer({"files": files})
        if found["what"] == "branch":
            branches = self.hub.models[found["repo"]]
            if found["revision"] in branches:
                return self.fail(409)
            branches[found["revision"]] = dict(branches["main"])
            return self.answer()
        self.commit(found["repo"], found["revision"], [json.loads(line) for line in body.splitlines()])

    def create(self, wanted: dict) -> None:
        name = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
        if not name.startswith("owner/"):
            return self.fail(403)
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.models:
            return self.answer(url, 409)
        self.hub.add(name, {".gitattributes": b""})
        self.hub.private += [name] * (wanted.get("visibility") == "private" or bool(wanted.get("private")))
        self.answer(url)

    def commit(self, name: str, branch: str, lines: list[dict]) -> None:
        files, title = self.hub.models[name][branch], ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.commits.append((name, branch, title))
        (sha, _) = self.hub.commit_of(name, branch)
        url = f"{self.hub.endpoint}/{name}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A server on a free port of loopback."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub})) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
