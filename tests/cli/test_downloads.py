import json
import threading
from pathlib import Path

from tidemill.up.downloads import DownloadProgress, describe


def line(**fields: object) -> bytes:
    return json.dumps({"event": "model download", "model": "a/b", **fields}).encode()


def test_size_and_progress_in_words() -> None:
    assert describe(line(weight_bytes=943 << 20)) == "downloading a/b, 943 MiB"
    assert describe(line(weight_bytes=1000 << 20, bytes=250 << 20)) == "downloading a/b: 250 of 1,000 MiB (25%)"
    assert describe(line(weight_bytes=0, bytes=3 << 20)) == "downloading a/b: 3 of unknown size"


def test_other_lines_say_nothing() -> None:
    for other in (b"", b"model download", b'{"event": "x", "y": "model download"}', b'{"event": "started"}'):
        assert describe(other) is None


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    log, told, enough = tmp_path / "log", list[str](), threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            enough.set()

    with DownloadProgress(log, tell):
        first, second = line(weight_bytes=1 << 20), line(weight_bytes=1 << 20, bytes=1 << 20)
        log.write_bytes(b"noise\n" + first + b"\n" + second[:10])
        with log.open("ab") as more:
            more.write(second[10:] + b"\n")
        assert enough.wait(20)
    assert told == ["downloading a/b, 1 MiB", "downloading a/b: 1 of 1 MiB (100%)"]
