"""A server that speaks the Hugging Face hub's protocol, as far as files of models go."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE_BYTES = 1000
"""Files of so many bytes are said to be large: the hub gives the SHA-256 of those alone."""


class HubServer:
    """Repositories, and what is wrong with them.

    Attributes:
        address: of the server, for HF_ENDPOINT.
        files: content by (repository, file name).
        gated: repositories that are given to nobody but those who have `token`.
        token: what the hub knows a user by.
        cut: names of files of which half is sent.
        changed: names of files that are sent with another content than was said.
        failing: whether it fails at everything.
        requests: (method, path) of what was asked.
    """

    def __init__(self) -> None:
        self.address = ""
        self.files: dict[tuple[str, str], bytes] = {}
        self.gated: set[str] = set()
        self.token = "hf_secret"
        self.cut: set[str] = set()
        self.changed: set[str] = set()
        self.failing = False
        self.requests: list[tuple[str, str]] = []

    def add(self, repo: str, folder: Path) -> None:
        """Add all files of a folder to a repository."""
        for path in folder.iterdir():
            self.files[repo, path.name] = path.read_bytes()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path))
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        file_name = rest.partition("/")[2]
        if hub.failing:
            self._refuse(503, "", "out of order")
        elif repo not in {known for known, _ in hub.files}:
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
        elif repo in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(403, "GatedRepo", f"Access to model {repo} is restricted")
        elif (repo, file_name) not in hub.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._send(hub.files[repo, file_name], file_name, with_body=with_body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, file_name: str, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.send_header("ETag", f'"{git_hash}"')
        if len(content) >= LARGE_BYTES:
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content)))
        if file_name in self.hub.cut and with_body:
            self.send_header("Connection", "close")
        self.end_headers()
        if not with_body:
            return
        if file_name in self.hub.cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif file_name in self.hub.changed:
            self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            self.wfile.write(content)


@contextmanager
def run_hub() -> Iterator[HubServer]:
    """A hub on this machine."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a hub's client that is loaded already what it is where the environment says so."""
    from huggingface_hub import constants

    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HOME", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
