"""Downloads against a server of our own that stops, lies, redirects and offers too much."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wbc_jax.errors import UsageError, WeightsError
from wbc_jax.weights import fetch, fetch_pretrained
from wbc_jax.weights.download import PUBLISHED, PublishedWeights

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path; the path says how it misbehaves. `requests` keeps (path, Range)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, as it does over the size limit, is part of the tests."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        match self.path:
            case "/file-redirect":
                return self._redirect("file:///etc/hostname")
            case "/ftp-redirect":
                return self._redirect("ftp://127.0.0.1/w")
            case "/redirect":
                return self._redirect("/good")
            case "/missing":
                return self.send_error(404)
            case "/busy" if len(self.server.requests) == 1:
                return self.send_error(503)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/no-ranges" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self._send(start)
        return None

    def _redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, start: int) -> None:
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stops = self.path == "/dead" or (self.path == "/breaks" and len(self.server.requests) == 1)
        self.wfile.write(body[:700_000] if stops else body)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_whole_file_with_progress_and_no_leftovers(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "sub" / "w.pth"
    assert fetch(f"{server.base}/good", SHA256, target, progress=lambda *state: seen.append(state)) == target
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["w.pth"]
    fetch(f"{server.base}/good", SHA256[:8], target)
    assert len(server.requests) == 1  # the second call found it there


def test_broken_connection_is_continued(server: Server, tmp_path: Path) -> None:
    fetch(f"{server.base}/breaks", SHA256, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert server.requests == [("/breaks", None), ("/breaks", "bytes=700000-")]


def test_dead_connection_keeps_its_part_for_the_next_call(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"(?s)after 2 attempts.*what was received is kept"):
        fetch(f"{server.base}/dead", SHA256, tmp_path / "w", attempts=2)
    assert not (tmp_path / "w").exists()
    kept = (tmp_path / "w.part").stat().st_size
    assert kept == 1_400_000
    fetch(f"{server.base}/good", SHA256, tmp_path / "w")
    assert server.requests[-1] == ("/good", f"bytes={kept}-")
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_part_of_something_else_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(b"another file's beginning")
    fetch(f"{server.base}/good", SHA256, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT
    (tmp_path / "v.part").write_bytes(CONTENT + b"longer")
    fetch(f"{server.base}/good", SHA256, tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == CONTENT


def test_complete_part_and_server_without_ranges(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    fetch(f"{server.base}/good", SHA256, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT
    (tmp_path / "v.part").write_bytes(CONTENT[:100])
    fetch(f"{server.base}/no-ranges", SHA256, tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == CONTENT


def test_wrong_digest_is_deleted(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"(?s){SHA256}; it was deleted.*00000000"):
        fetch(f"{server.base}/good", "0" * 64, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_of_other_content_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="not overwritten"):
        fetch(f"{server.base}/good", SHA256, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("path", ["/good", "/endless"])
def test_size_limit_with_and_without_a_promised_length(server: Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(WeightsError, match="at most 1000000 bytes"):
        fetch(server.base + path, SHA256, tmp_path / "w", max_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_only_http_also_after_redirects(server: Server, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    for url in (local.as_uri(), "ftp://127.0.0.1/w", str(local)):
        with pytest.raises(UsageError, match="http:// or https://"):
            fetch(url, SHA256, tmp_path / "w")
    with pytest.raises(WeightsError, match="'file:///etc/hostname' is not allowed"):
        fetch(f"{server.base}/file-redirect", SHA256, tmp_path / "w")
    with pytest.raises(UsageError, match="ftp://"):
        fetch(f"{server.base}/ftp-redirect", SHA256, tmp_path / "w")
    fetch(f"{server.base}/redirect", SHA256, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_http_errors(server: Server, tmp_path: Path) -> None:
    fetch(f"{server.base}/busy", SHA256, tmp_path / "busy")  # 503 once, then served
    with pytest.raises(WeightsError, match="after 1 attempt: HTTP 404"):
        fetch(f"{server.base}/missing", SHA256, tmp_path / "w")
    with pytest.raises(WeightsError, match="download failed after 1 attempt"):
        fetch("http://127.0.0.1:9/w", SHA256, tmp_path / "w", attempts=1, timeout_s=2)


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 65])
def test_malformed_digest(tmp_path: Path, digest: str) -> None:
    with pytest.raises(UsageError, match="not a SHA-256"):
        fetch("http://127.0.0.1:9/w", digest, tmp_path / "w")


def test_published_weights_by_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PublishedWeights, "url", property(lambda self: f"{server.base}/{self.file_name}"))
    monkeypatch.setitem(PUBLISHED, ("resnet18", "v1"), PublishedWeights(f"resnet18-{SHA256[:8]}.pth", 0.0))
    path = fetch_pretrained("resnet18", tmp_path)
    assert path.name == f"resnet18-{SHA256[:8]}.pth"
    assert path.read_bytes() == CONTENT
    with pytest.raises(UsageError, match=r"(?s)no v2 weights of 'densenet121'.*resnet50 v2"):
        fetch_pretrained("densenet121", tmp_path, "v2")
