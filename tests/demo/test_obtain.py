"""Where data comes from, in which order, and what becomes of a download that fails."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marquee.errors import DataError
from training import obtain as module
from training.obtain import download, main, obtain

FILES = {name: f"{name}\n".encode() * 100 for name in ("ratings.csv", "movies.csv", "links.csv")}
CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in files.items():
            writer.writestr(f"ml-latest-small/{name}", content)
    return packed.getvalue()


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


GOOD = archive(FILES)
# The central directory's first entry: its flags are at 8, its compression at 10.
DIRECTORY = GOOD.index(b"PK\x01\x02")
FIRST_DATA = 30 + len("ml-latest-small/ratings.csv")
BAD = {
    "corrupt": changed(GOOD, FIRST_DATA, 0xFF),
    "encrypted": changed(changed(GOOD, DIRECTORY + 8, 1), 6, 1),
    "unknown-compression": changed(changed(GOOD, DIRECTORY + 10, 99), 8, 99),
    "other-content": archive(FILES | {"movies.csv": b"something else"}),
    "no-movies": archive({"ratings.csv": FILES["ratings.csv"]}),
    "truncated-archive": GOOD[: len(GOOD) // 2],
    "page": b"<html>log in first</html>",
    "empty": b"",
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name == "no-http":
            self.wfile.write(b"what?\r\n\r\n")
        elif name == "cut-off":
            self._answer(GOOD[:100], len(GOOD))
        elif name == "silent":
            self._answer(b"", len(GOOD))
            self.server.quit.wait(30)  # type: ignore[attr-defined]
        elif name == "good" or name in BAD:
            body = BAD.get(name, GOOD)
            self._answer(body, len(body))
        else:
            self.send_error(404)

    def _answer(self, body: bytes, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.quit = threading.Event()  # type: ignore[attr-defined]
    running = threading.Thread(target=server.serve_forever)
    running.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.quit.set()  # type: ignore[attr-defined]
    server.shutdown()
    running.join()
    server.server_close()


def test_a_good_download_is_taken_and_kept(tmp_path: Path, site: str) -> None:
    found = obtain("", tmp_path, f"{site}/good", CHECKSUMS)
    assert found == tmp_path / "ml-latest-small"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == FILES
    # The second time it is found, not downloaded.
    assert obtain("", tmp_path, f"{site}/page", CHECKSUMS) == found


@pytest.mark.parametrize("name", [*BAD, "no-http", "cut-off", "missing"])
def test_a_bad_download_ends_in_the_sample(tmp_path: Path, site: str, name: str) -> None:
    assert obtain("", tmp_path, f"{site}/{name}", CHECKSUMS) == tmp_path / "sample"
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_no_server_and_no_address_end_in_the_sample(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1/x", "no address"):
        assert obtain("", tmp_path, url, CHECKSUMS) == tmp_path / "sample"


def test_a_silent_server_is_left(tmp_path: Path, site: str) -> None:
    with pytest.raises(DataError, match=r"timed out"):
        download(f"{site}/silent", tmp_path / "data", CHECKSUMS, timeout_s=0.2)
    assert list(tmp_path.iterdir()) == []


def test_what_is_named_and_what_is_local_come_first(tmp_path: Path, site: str) -> None:
    named, local = tmp_path / "named", tmp_path / "ml-latest-small"
    named.mkdir()
    local.mkdir()
    assert obtain(str(named), tmp_path, f"{site}/good", CHECKSUMS) == named
    assert obtain("", tmp_path, f"{site}/good", CHECKSUMS) == local
    assert obtain("sample", tmp_path, f"{site}/good", CHECKSUMS) == tmp_path / "sample"


def test_a_file_in_the_samples_place_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sample").touch()
    assert main(["--data", "sample", "--into", str(tmp_path)]) == 1
    assert f"obtain: {tmp_path / 'sample'}: the sample cannot be written there" in capsys.readouterr().err
    assert main(["--data", "sample", "--into", str(tmp_path / "sample")]) == 1


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "obtain", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "obtain: interrupted; nothing half-written is left\n"
