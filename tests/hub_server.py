"""The Hugging Face Hub's HTTP API on the loopback interface, for the real `huggingface_hub` client.

Repositories live in a folder of the server; a route that it does not know answers 404 and is kept in `unknown`, which
makes the tests fail. Tokens are never kept: `requests` has method, path and status alone.

Not covered is Xet, by which huggingface_hub 2.4 sends every large file wherever `hf_xet` is installed
(`_commit_api._upload_xet_files`, whatever the server says), and fetches those whose answer has `X-Xet-Hash`
(`file_download.xet_get`). Its chunks go to servers of their own. `environment` sets HF_HUB_DISABLE_XET, so that files
go by git LFS in one PUT each, as they do without `hf_xet`. Uploads in several parts, which the Hub asks for by a
`chunk_size`, and pull requests are not covered either. Commits, the hashes that are read back after an upload, and the
cache with its ETags are the same by all ways.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# Looks like one, so that what hides tokens is tested with it; it opens nothing anywhere.
TOKEN = "hf_" + "loopbackonly" * 3
USER = "someone"
# What the Hub keeps as large files.
_LARGE = (".parquet", ".safetensors", ".bin", ".arrow", ".png", ".model")
_LFS_POINTER_SIZE = 134
_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>models|datasets)/{_NAME}"


@dataclass(frozen=True)
class Blob:
    """Content of a file: `sha256` names it in the store; a small file goes by git's hash `oid`."""

    sha256: str
    oid: str
    size: int
    is_large: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.oid

    def entry(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.is_large:
            found["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": _LFS_POINTER_SIZE}
        return found


@dataclass
class Repo:
    """A repository: commits are complete lists of files."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, Blob], message: str) -> str:
        text = json.dumps([self.kind, self.name, branch, len(self.commits), sorted(files)])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return sha if sha in self.commits else None


@dataclass
class Fault:
    """What goes wrong: the request whose method and path fit, `times` times."""

    method: str
    path: str
    how: str  # "drop": break the connection in the middle; "500": an answer of this status
    times: int = 1


class HubError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str | None = None, message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class HubServer:
    """The state of the Hub, and the server that shows it.

    Args:
        folder: Where contents are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: Path, *, token: str | None = None, **more: str) -> dict[str, str]:
        """Variables for a process that knows this Hub alone: a proxy that is not there takes all other addresses."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept.pop("PYTHONPATH", None)
        nowhere = "http://127.0.0.1:9"
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            **({"HF_TOKEN": token} if token else {}),
            **more,
        }

    def repo(self, kind: str, name: str) -> Repo:
        return self.repos[kind, name]

    def read(self, kind: str, name: str, path: str, revision: str = "main") -> bytes:
        """The content of a file, for tests to look at."""
        repo = self.repo(kind, name)
        return self.content(repo.commits[repo.branches[revision]][path])

    def names(self, kind: str, name: str, revision: str = "main") -> list[str]:
        repo = self.repo(kind, name)
        return sorted(repo.commits[repo.branches[revision]])

    @contextmanager
    def fault(self, method: str, path: str, how: str, times: int = 1) -> Iterator[Fault]:
        """Make something go wrong for a while; what did not happen by the end is an error of the test."""
        fault = Fault(method, path, how, times)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)
        assert fault.times == 0, f"{method} {path} was not asked for"

    def content(self, blob: Blob) -> bytes:
        return (self.folder / blob.sha256).read_bytes()

    def store(self, content: bytes, *, is_large: bool) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        return self.known(sha256, is_large=is_large)

    def known(self, sha256: str, *, is_large: bool) -> Blob:
        """A content that was uploaded before."""
        content = (self.folder / sha256).read_bytes()
        oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return Blob(sha256, oid, len(content), is_large)

    # ---- what the handler asks for --------------------------------------------------------------------------------

    def find(self, kind: str, name: str, user: str | None) -> Repo:
        repo = self.repos.get((kind, name))
        if repo is None or repo.private and user != name.partition("/")[0]:
            # As the Hub does: who may not see a repository is not told whether it is there.
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        return repo

    def commit_of(self, repo: Repo, revision: str) -> str:
        sha = repo.find(revision)
        if sha is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


Answer = tuple[int, dict[str, str], bytes]
Route = Callable[["_Handler", dict[str, str]], Answer]
_ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        _ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer's head and body in two packets wait for one another otherwise: 40 ms each.
    disable_nagle_algorithm = True

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: Any) -> None:
        """Nothing to the screen: requests are kept in the server."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    @property
    def user(self) -> str | None:
        given = self.headers.get("Authorization", "")
        if not given:
            return None
        if given != f"Bearer {TOKEN}":
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return USER

    def writer(self, name: str) -> None:
        if self.user is None:
            raise HubError(401, None, "Invalid username or password.")
        if name.partition("/")[0] != self.user:
            raise HubError(403, None, f"You don't have the rights to create {name}")

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self._fault(path)
        if fault == "drop":
            self._drop()
            return
        self.body = self._read_body()
        try:
            if fault == "500":
                raise HubError(500, None, "Internal Error")
            status, headers, content = self._dispatch(path)
        except HubError as error:
            status, content = error.status, json.dumps({"error": error.message}).encode()
            headers = {"X-Error-Message": error.message, "Content-Type": "application/json"}
            if error.code:
                headers["X-Error-Code"] = error.code
        self.hub.requests.append((self.command, path, status))
        self._answer(status, headers, content)

    def _dispatch(self, path: str) -> Answer:
        for method, pattern, function in _ROUTES:
            found = pattern.fullmatch(path)
            if found and method == self.command:
                with self.hub.lock:
                    return function(
                        self, {key: value for key, value in found.groupdict().items() if value is not None}
                    )
        self.hub.unknown.append(f"{self.command} {path}")
        raise HubError(404, None, "unknown route")

    def _fault(self, path: str) -> str | None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times and fault.method == self.command and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.how
        return None

    def _drop(self) -> None:
        """Break off in the middle: of what is sent, or of the answer."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "GET":
            status, headers, content = self._dispatch(unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
        else:
            self.rfile.read(length // 2)
        self.close_connection = True
        self.connection.close()

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json_body(self) -> Any:
        return json.loads(self.body)


def _json(content: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


@route("GET", r"/api/whoami-v2")
def _whoami(handler: _Handler, _: dict[str, str]) -> Answer:
    if handler.user is None:
        raise HubError(401, None, "Invalid username or password.")
    return _json({"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}})


@route("GET", r"/api/agent-harnesses")
def _harnesses(handler: _Handler, _: dict[str, str]) -> Answer:
    return _json({"standardEnvVars": [], "harnesses": {}})


@route("POST", r"/api/repos/create")
def _create(handler: _Handler, _: dict[str, str]) -> Answer:
    given = handler.json_body()
    kind = "datasets" if given.get("type") == "dataset" else "models"
    name = f"{given.get('organization') or USER}/{given['name']}"
    handler.writer(name)
    prefix = "datasets/" if kind == "datasets" else ""
    answer = {"url": f"{handler.hub.url}/{prefix}{name}", "name": name}
    if (kind, name) in handler.hub.repos:
        return _json(answer | {"error": "You already created this repo"}, 409)
    repo = Repo(kind, name, private=given.get("visibility") == "private" or bool(given.get("private")))
    repo.commit("main", {".gitattributes": handler.hub.store(b"", is_large=False)}, "initial commit")
    handler.hub.repos[kind, name] = repo
    return _json(answer)


@route("DELETE", r"/api/repos/delete")
def _delete(handler: _Handler, _: dict[str, str]) -> Answer:
    given = handler.json_body()
    kind = "datasets" if given.get("type") == "dataset" else "models"
    name = f"{given.get('organization') or USER}/{given['name']}"
    handler.writer(name)
    handler.hub.find(kind, name, handler.user)
    del handler.hub.repos[kind, name]
    return _json({})


@route("POST", r"/api/validate-yaml")
def _validate(handler: _Handler, _: dict[str, str]) -> Answer:
    import yaml

    parts = handler.json_body()["content"].split("---\n", 2)
    try:
        yaml.safe_load(parts[1] if len(parts) == 3 else "")
    except yaml.YAMLError as error:
        return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return _json({"errors": [], "warnings": []})


@route("POST", rf"{_API}/preupload/(?P<revision>.+)")
def _preupload(handler: _Handler, given: dict[str, str]) -> Answer:
    handler.writer(given["repo"])
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    files = repo.commits[handler.hub.commit_of(repo, given["revision"])]
    return _json(
        {
            "files": [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": files[one["path"]].etag if one["path"] in files else None,
                }
                for one in handler.json_body()["files"]
            ]
        }
    )


@route("POST", rf"/(?:datasets/)?{_NAME}\.git/info/lfs/objects/batch")
def _batch(handler: _Handler, given: dict[str, str]) -> Answer:
    handler.writer(given["repo"])
    objects = []
    for one in handler.json_body()["objects"]:
        entry: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
        if not (handler.hub.folder / one["oid"]).exists():
            entry["actions"] = {"upload": {"href": f"{handler.hub.url}/lfs/{one['oid']}", "header": {}}}
        objects.append(entry)
    return _json({"transfer": "basic", "objects": objects})


@route("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})")
def _put(handler: _Handler, given: dict[str, str]) -> Answer:
    if hashlib.sha256(handler.body).hexdigest() != given["oid"]:
        raise HubError(400, None, "The content is not what its name says")
    handler.hub.store(handler.body, is_large=True)
    return 200, {"ETag": f'"{given["oid"]}"'}, b""


@route("POST", rf"{_API}/commit/(?P<revision>.+)")
def _commit(handler: _Handler, given: dict[str, str]) -> Answer:
    handler.writer(given["repo"])
    hub = handler.hub
    repo = hub.find(given["kind"], given["repo"], handler.user)
    files = dict(repo.commits[hub.commit_of(repo, given["revision"])])
    message = ""
    for line in handler.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            message = value["summary"]
        elif item["key"] == "file":
            files[value["path"]] = hub.store(base64.b64decode(value["content"]), is_large=False)
        elif item["key"] == "lfsFile":
            if not (hub.folder / value["oid"]).exists():
                raise HubError(400, None, f"{value['path']} was not uploaded")
            files[value["path"]] = hub.known(value["oid"], is_large=True)
        elif item["key"] == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
        elif item["key"] == "deletedFolder":
            inside = value["path"].rstrip("/") + "/"
            files = {path: blob for path, blob in files.items() if not path.startswith(inside)}
        else:
            raise HubError(400, None, f"unknown operation {item['key']}")
    sha = repo.commit(given["revision"], files, message)
    return _json({"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{repo.name}/commit/{sha}"})


@route("GET", rf"{_API}(?:/revision/(?P<revision>.+))?")
def _info(handler: _Handler, given: dict[str, str]) -> Answer:
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    sha = handler.hub.commit_of(repo, given.get("revision", "main"))
    return _json(
        {
            "id": repo.name,
            "sha": sha,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "lastModified": "2025-01-01T00:00:00.000Z",
            "createdAt": "2025-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(repo.commits[sha])],
        }
    )


@route("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def _tree(handler: _Handler, given: dict[str, str]) -> Answer:
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    files = repo.commits[handler.hub.commit_of(repo, given["revision"])]
    prefix = f"{given['path']}/" if "path" in given else ""
    inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
    if prefix and not inside:
        raise HubError(404, "EntryNotFound", f"{given['path']} does not exist on {given['revision']}")
    is_recursive = handler.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    folders = sorted({path[: len(prefix)] + part for path in inside for part in _folders(path[len(prefix) :])})
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        for path in folders
        if is_recursive or "/" not in path[len(prefix) :]
    ]
    entries += [
        blob.entry(path) for path, blob in sorted(inside.items()) if is_recursive or "/" not in path[len(prefix) :]
    ]
    return _json(entries)


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


@route("POST", rf"{_API}/paths-info/(?P<revision>.+)")
def _paths_info(handler: _Handler, given: dict[str, str]) -> Answer:
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    files = repo.commits[handler.hub.commit_of(repo, given["revision"])]
    wanted = parse_qs(handler.body.decode()).get("paths", [])
    folders = {part for path in files for part in _folders(path)}
    return _json(
        [
            files[path].entry(path)
            if path in files
            else {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            for path in wanted
            if path in files or path in folders
        ]
    )


@route("GET", rf"{_API}/refs")
def _refs(handler: _Handler, given: dict[str, str]) -> Answer:
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)

    def listed(found: dict[str, str], place: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{place}/{name}", "targetCommit": sha} for name, sha in found.items()]

    return _json({"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []})


@route("POST", rf"{_API}/branch/(?P<branch>.+)")
def _branch(handler: _Handler, given: dict[str, str]) -> Answer:
    handler.writer(given["repo"])
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    if given["branch"] in repo.branches:
        return _json({"error": "Reference already exists"}, 409)
    start = handler.json_body().get("startingPoint", "main") if handler.body else "main"
    repo.branches[given["branch"]] = handler.hub.commit_of(repo, start)
    return _json({})


@route("POST", rf"{_API}/tag/(?P<revision>.+)")
def _tag(handler: _Handler, given: dict[str, str]) -> Answer:
    handler.writer(given["repo"])
    repo = handler.hub.find(given["kind"], given["repo"], handler.user)
    repo.tags[handler.json_body()["tag"]] = handler.hub.commit_of(repo, given["revision"])
    return _json({})


def _resolve(handler: _Handler, given: dict[str, str]) -> Answer:
    repo = handler.hub.find("datasets" if given.get("datasets") else "models", given["repo"], handler.user)
    if repo.gated and handler.user is None:
        raise HubError(401, "GatedRepo", f"Access to {repo.name} is restricted")
    sha = handler.hub.commit_of(repo, given["revision"])
    blob = repo.commits[sha].get(given["path"])
    headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if blob is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    headers["ETag"] = f'"{blob.etag}"'
    if blob.is_large:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
    content = handler.hub.content(blob)
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if asked is None:
        return 200, headers, content
    first, last = int(asked[1]), int(asked[2] or blob.size - 1)
    if first >= blob.size:
        raise HubError(416, None, "Requested range not satisfiable")
    headers["Content-Range"] = f"bytes {first}-{min(last, blob.size - 1)}/{blob.size}"
    return 206, headers, content[first : last + 1]


_FILE = rf"/(?P<datasets>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
route("GET", _FILE)(_resolve)
route("HEAD", _FILE)(_resolve)
