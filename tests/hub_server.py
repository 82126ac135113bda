"""A stand-in for the Hugging Face hub, on this machine: what its library asks of models, by git hashes, no LFS."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_testing_token"


@dataclass
class Hub:
    """What the hub has.

    Attributes:
        commits: By model, branch and commit alike, the files of each revision.
        private: Models that need the token.
        gated: Models whose terms were not accepted.
        down: Whether all is answered by 503.
        asked: What was asked for.
    """

    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    down: bool = False
    asked: list[str] = field(default_factory=list)

    def commit(self, model: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds files to a branch; the new commit."""
        revisions = self.commits.setdefault(model, {})
        whole = {**revisions.get(branch, {}), **files}
        sha = hashlib.sha1(repr(sorted((name, _blob(data)) for name, data in whole.items())).encode()).hexdigest()
        revisions[branch] = revisions[sha] = whole
        return sha

    def sha(self, model: str, revision: str) -> str:
        files = self.commits[model][revision]
        return next(name for name, same in self.commits[model].items() if same is files and len(name) == 40)


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def hub_server(hub: Hub) -> Iterator[str]:
    """Serves a hub; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if hub.down:
                return self.send(503, {"error": "down"})
            if path == "/api/repos/create":
                return self.create(json.loads(body))
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree|preupload|commit|branch)/([^/]+)", path)
            if found:
                return self.api(found[1], found[2], found[3], body)
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if found:
                return self.file(*found.groups())
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
            return self.api(found[1], "revision", "main", body) if found else self.send(404, {})

        def may(self, model: str, *, write: bool = False) -> bool:
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if write and not known:
                self.send(401, {"error": "who are you?"})
            elif model not in hub.commits or (model in hub.private and not known):
                self.send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif model in hub.gated:
                self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            else:
                return True
            return False

        def create(self, asked: dict) -> None:
            model = f"{asked['organization']}/{asked['name']}"
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.send(401, {"error": "who are you?"})
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(model)
            exists = model in hub.commits
            if not exists:
                hub.commit(model, {".gitattributes": b""})
            return self.send(409 if exists else 200, {"url": f"{self.url()}/{model}", "name": model})

        def api(self, model: str, what: str, revision: str, body: bytes) -> None:
            if not self.may(model, write=what in ("preupload", "commit", "branch")):
                return None
            if what == "branch":
                hub.commits[model].setdefault(revision, hub.commits[model]["main"])
                return self.send(200, {})
            if what == "preupload":
                asked = json.loads(body)["files"]
                return self.send(200, {"files": [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in asked
                ]})  # fmt: skip
            if revision not in hub.commits[model]:
                return self.send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            if what == "commit":
                return self.add(model, revision, body)
            files = hub.commits[model][revision]
            if what == "tree":
                rows = [(name, len(data), _blob(data)) for name, data in files.items()]
                return self.send(200, [{"type": "file", "path": n, "size": s, "oid": oid} for n, s, oid in rows])
            return self.send(200, {"id": model, "sha": hub.sha(model, revision), "private": model in hub.private,
                                   "siblings": [{"rfilename": name} for name in files]})  # fmt: skip

        def add(self, model: str, branch: str, body: bytes) -> None:
            rows = [json.loads(line) for line in body.splitlines()]
            files = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows
                     if row["key"] == "file"}  # fmt: skip
            sha = hub.commit(model, files, branch)
            self.send(200, {"commitOid": sha, "commitUrl": f"{self.url()}/{model}/commit/{sha}", "success": True})

        def file(self, model: str, revision: str, name: str) -> None:
            if not self.may(model):
                return None
            data = hub.commits[model].get(revision, {}).get(name)
            if data is None:
                return self.send(404, {}, {"X-Error-Code": "EntryNotFound"})
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": hub.sha(model, revision)}
            return self.send(206 if start else 200, data[start:], headers)

        def send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def url(self) -> str:
            return f"http://127.0.0.1:{self.server.server_address[1]}"

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "POST"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
