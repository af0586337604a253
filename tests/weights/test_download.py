"""Downloads: whole files only get their name, cut ones go on, and nothing else gets in.

Each test has its own cache folder and its own server on this machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from command import contents
from fakes import file_size_limit
from hd2s.errors import HD2SError, InputNotFoundError, OutputError, WeightsError
from hd2s.weights import download
from hd2s.weights.catalog import WEIGHTS, WeightRecord
from hd2s.weights.download import fetch

DATA = random.Random(3).randbytes(400_000)
OTHER = random.Random(4).randbytes(400_000)
HALF = 200_000
NAME = "net-0123.pth"
PART = f"{NAME}.part"


class Request(NamedTuple):
    """What was asked, and what was answered."""

    path: str
    range: str | None
    status: int
    sent: int


class Server(http.server.ThreadingHTTPServer):
    """Serves `data`, as badly as its settings say."""

    data = DATA
    ranges = True
    announces_length = True
    cuts: list[int]  # bytes after which the next answers end
    statuses: list[int]  # of the next answers, instead of the file
    location: str | None = None  # for redirects
    content_range: str | None = None  # instead of the true one

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.statuses, self.requests = [], [], list[Request]()
        self.hold, self.stall = threading.Event(), threading.Event()  # set, or answers begin or end later
        self.hold.set()
        self.stall.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models/{NAME}?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.hold.wait()
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        status = server.statuses.pop(0) if server.statuses else 200 if not asked or not server.ranges else 206
        if status == 206 and start >= len(server.data):
            status = 416
        body = server.data[start:] if status in (200, 206) else b"an error page"
        sent = min(len(body), server.cuts.pop(0)) if server.cuts else len(body)
        server.requests.append(Request(self.path, asked, status, sent))
        self.send_response(status)
        if status == 206:
            whole = f"bytes {start}-{len(server.data) - 1}/{len(server.data)}"
            self.send_header("Content-Range", server.content_range or whole)
        if server.location:
            self.send_header("Location", server.location)
        if server.announces_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have seen enough
            self.wfile.write(body[:sent])
        server.stall.wait()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads go to; retries wait for nothing."""
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_WAITS_SECONDS", (0.0, 0.0, 0.0))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def record(server: Server, folder: Path) -> WeightRecord:
    return dataclasses.replace(
        WEIGHTS["s3d-kinetics400"],
        name="net",
        url=server.url,
        sha256=hashlib.sha256(DATA).hexdigest()[:8],
        size_bytes=len(DATA),
        size_is_exact=True,
    )


def rough(record: WeightRecord, size: int) -> WeightRecord:
    return dataclasses.replace(record, size_bytes=size, size_is_exact=False)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files(folder: Path) -> list[str]:
    return [name for name in contents(folder) if not name.endswith(".lock")]


# --- whole downloads --------------------------------------------------------------------------------


def test_downloads_once_into_the_cache_folder(server: Server, record: WeightRecord, folder: Path) -> None:
    path = fetch(record)
    assert path == folder / NAME
    assert path.read_bytes() == DATA
    assert files(folder) == [NAME]
    assert fetch(record) == path
    assert server.requests == [Request(f"/models/{NAME}?download=1", None, 200, len(DATA))]


def test_what_is_there_needs_no_server(record: WeightRecord, folder: Path) -> None:
    put(folder / NAME, DATA)
    assert fetch(dataclasses.replace(record, url=f"http://127.0.0.1:9/{NAME}")) == folder / NAME
    assert contents(folder) == [NAME], "nor a lock: the folder may be read-only"


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, record: WeightRecord, folder: Path) -> None:
    put(folder / NAME, DATA[:-1] + b"?")
    assert fetch(record).read_bytes() == DATA
    assert len(server.requests) == 1


def test_progress_counts_bytes_up_to_the_total(record: WeightRecord) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(record, lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert len(seen) > 3


def test_nothing_has_the_final_name_before_it_is_whole(record: WeightRecord, folder: Path) -> None:
    seen: list[list[str]] = []
    fetch(record, lambda done, total: seen.append(files(folder)))
    assert seen
    assert all(names == [PART] for names in seen)


def test_a_server_that_announces_no_length(server: Server, record: WeightRecord) -> None:
    server.announces_length = False
    seen: list[tuple[int, int | None]] = []
    assert fetch(record, lambda done, total: seen.append((done, total))).read_bytes() == DATA
    assert seen[-1] == (len(DATA), None)


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_redirects_are_followed(server: Server, record: WeightRecord, folder: Path, status: int) -> None:
    put(folder / PART, DATA[:HALF])
    server.statuses, server.location = [status], server.url.replace("models", "mirror")
    assert fetch(record).read_bytes() == DATA
    assert [(request.path.split("/")[1], request.range) for request in server.requests] == [
        ("models", f"bytes={HALF}-"),
        ("mirror", f"bytes={HALF}-"),
    ]


# --- interrupted downloads --------------------------------------------------------------------------


def test_a_cut_connection_is_continued_at_once(server: Server, record: WeightRecord, folder: Path) -> None:
    server.cuts = [HALF, 100_000]
    assert fetch(record).read_bytes() == DATA
    assert [request[1:] for request in server.requests] == [
        (None, 200, HALF),
        (f"bytes={HALF}-", 206, 100_000),
        (f"bytes={HALF + 100_000}-", 206, 100_000),
    ]
    assert files(folder) == [NAME]


def test_a_connection_that_is_cut_again_and_again_keeps_the_part_for_the_next_call(
    server: Server, record: WeightRecord, folder: Path
) -> None:
    server.cuts = [HALF, 0, 0]
    with pytest.raises(
        WeightsError, match=r"failed 3 times.*200000 of 400000.*200000 bytes that arrived are kept"
    ):
        fetch(record)
    assert files(folder) == [PART]
    assert (folder / PART).read_bytes() == DATA[:HALF]
    server.requests.clear()
    seen: list[tuple[int, int | None]] = []
    assert fetch(record, lambda done, total: seen.append((done, total))).read_bytes() == DATA
    assert [request[1:] for request in server.requests] == [(f"bytes={HALF}-", 206, len(DATA) - HALF)]
    assert seen[0] == (HALF, len(DATA))
    assert files(folder) == [NAME]


def test_a_server_without_ranges_sends_all_again(server: Server, record: WeightRecord, folder: Path) -> None:
    put(folder / PART, OTHER[:HALF])
    server.ranges = False
    assert fetch(record).read_bytes() == DATA
    assert [request[1:] for request in server.requests] == [(f"bytes={HALF}-", 200, len(DATA))]


def test_a_part_of_another_file_is_noticed_and_dropped(
    server: Server, record: WeightRecord, folder: Path
) -> None:
    put(folder / PART, OTHER[:HALF])
    assert fetch(record).read_bytes() == DATA
    assert [request[1:] for request in server.requests] == [
        (f"bytes={HALF}-", 206, len(DATA) - HALF),
        (None, 200, len(DATA)),
    ]


def test_another_file_on_the_server_since_the_interruption_is_refused(
    server: Server, record: WeightRecord, folder: Path
) -> None:
    put(folder / PART, DATA[:HALF])
    server.data = OTHER
    with pytest.raises(WeightsError, match="is not the file of 'net': its SHA-256"):
        fetch(record)
    assert files(folder) == []
    server.data = DATA
    assert fetch(record).read_bytes() == DATA


def test_a_part_that_is_the_whole_file_only_needs_its_name(
    server: Server, record: WeightRecord, folder: Path
) -> None:
    put(folder / PART, DATA)
    assert fetch(record).read_bytes() == DATA
    assert [request[1:3] for request in server.requests] == [(f"bytes={len(DATA)}-", 416)]
    assert files(folder) == [NAME]


def test_a_part_that_is_too_long_is_begun_anew(server: Server, record: WeightRecord, folder: Path) -> None:
    put(folder / PART, DATA + b"and more")
    assert fetch(record).read_bytes() == DATA
    assert [request.status for request in server.requests] == [416, 200]


def test_another_range_than_the_wanted_one_is_not_appended(
    server: Server, record: WeightRecord, folder: Path
) -> None:
    put(folder / PART, DATA[:HALF])
    server.content_range = f"bytes 0-{len(DATA) - 1}/{len(DATA)}"
    assert fetch(record).read_bytes() == DATA
    assert [request[1:3] for request in server.requests] == [(f"bytes={HALF}-", 206), (None, 200)]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server: Server, record: WeightRecord, status: int) -> None:
    server.statuses = [status, status]
    assert fetch(record).read_bytes() == DATA
    assert [request.status for request in server.requests] == [status, status, 200]


def test_a_server_that_stays_busy_is_left_alone(server: Server, record: WeightRecord, folder: Path) -> None:
    server.statuses = [503] * 4
    with pytest.raises(WeightsError, match="failed 3 times, last because the server answered 503"):
        fetch(record)
    assert len(server.requests) == 3
    assert files(folder) == []


def test_a_server_that_says_nothing_is_given_up(
    server: Server, record: WeightRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.hold.clear()
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.05)
    start = time.monotonic()
    try:
        with pytest.raises(WeightsError, match="failed 3 times, last because of .*timed out"):
            fetch(record)
    finally:
        server.hold.set()
    assert time.monotonic() - start < 5


def test_a_connection_that_stalls_is_continued_on_another(
    server: Server, record: WeightRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stall.clear()
    server.cuts = [HALF]
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.5)
    try:
        assert fetch(record).read_bytes() == DATA
    finally:
        server.stall.set()
    _, second = server.requests
    assert second.status == 206
    assert HALF // 2 < len(DATA) - second.sent <= HALF, "at most the last chunk is asked for again"


def test_no_server(record: WeightRecord, folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9/x failed 3 times.*[Rr]efused.*try again"):
        fetch(dataclasses.replace(record, url="http://127.0.0.1:9/x"))


# --- what is refused --------------------------------------------------------------------------------


def test_a_wrong_hash_leaves_nothing(server: Server, record: WeightRecord, folder: Path) -> None:
    server.data = OTHER
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(
        WeightsError, match=f"SHA-256 is {found}, expected {record.sha256}.*put it at {folder}"
    ):
        fetch(record)
    assert files(folder) == []
    assert len(server.requests) == 1


def test_the_whole_of_a_hash_is_compared(record: WeightRecord, folder: Path) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    assert fetch(dataclasses.replace(record, sha256=digest)).is_file()
    last = "0" if digest[-1] != "0" else "1"
    with pytest.raises(WeightsError, match="its SHA-256"):
        fetch(dataclasses.replace(record, sha256=digest[:-1] + last))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_missing_file_says_how_to_do_without(
    server: Server, record: WeightRecord, folder: Path, status: int
) -> None:
    server.statuses = [status]
    with pytest.raises(
        InputNotFoundError, match=rf"'net'.*{server.url.split('?')[0]}.*answered {status} .*put it"
    ):
        fetch(record)
    assert len(server.requests) == 1
    assert files(folder) == []


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_not_downloaded(
    server: Server, record: WeightRecord, folder: Path, size: int
) -> None:
    with pytest.raises(WeightsError, match=f"it has {len(DATA)} bytes instead of {size}"):
        fetch(dataclasses.replace(record, size_bytes=size))
    assert files(folder) == []


def test_a_size_that_is_roughly_known_is_no_obstacle(record: WeightRecord) -> None:
    assert fetch(rough(record, len(DATA) - 10_000)).read_bytes() == DATA


def test_a_file_far_above_its_rough_size_is_not_downloaded(record: WeightRecord, folder: Path) -> None:
    with pytest.raises(WeightsError, match=f"it has {len(DATA)} bytes instead of 100000"):
        fetch(rough(record, 100_000))
    assert files(folder) == []


def test_a_server_that_never_ends_is_cut_off(server: Server, record: WeightRecord, folder: Path) -> None:
    server.data, server.announces_length = DATA * 200, False
    largest = 0

    def watch(done: int, total: int | None) -> None:
        nonlocal largest
        largest = max(largest, (folder / PART).stat().st_size)

    with pytest.raises(WeightsError, match=f"it has more than {len(DATA)} bytes"):
        fetch(record, watch)
    assert largest <= len(DATA)
    assert files(folder) == []


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/net.pth", "data:,weights"])
def test_redirects_lead_to_the_web_only(
    server: Server, record: WeightRecord, folder: Path, target: str
) -> None:
    server.statuses, server.location = [302], target
    with pytest.raises(InputNotFoundError, match=rf"answered 302 .*{target}"):
        fetch(record)
    assert files(folder) == []


def test_an_encrypted_address_is_not_left() -> None:
    request = download.urllib.request.Request("https://localhost/a")
    with pytest.raises(download.urllib.error.HTTPError, match="refused: http://localhost/b"):
        download._Redirects().redirect_request(request, None, 302, "Found", {}, "http://localhost/b")
    follows = download._Redirects().redirect_request(request, None, 302, "Found", {}, "https://localhost/b")
    assert follows is not None
    assert follows.full_url == "https://localhost/b"


# --- records without a link, and files that come along ----------------------------------------------


@pytest.mark.parametrize("name", ["hd2s", "hd2s-da", "hd2s-dsl"])
def test_weights_without_a_link_say_how_to_point_to_a_copy(folder: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"'{name}' cannot be downloaded.*--weights FILE.*weights convert"):
        fetch(WEIGHTS[name])
    assert files(folder) == []


def test_the_file_of_the_package_is_taken_as_it_is(folder: Path) -> None:
    assert fetch(WEIGHTS["hd2s-lite"]) == WEIGHTS["hd2s-lite"].path
    assert not folder.exists()


def test_a_damaged_or_missing_file_of_the_package_is_noticed(tmp_path: Path) -> None:
    own = dataclasses.replace(WEIGHTS["hd2s-lite"], path=tmp_path / "own.safetensors")
    with pytest.raises(InputNotFoundError, match=r"own\.safetensors does not exist.*Install hd2s again"):
        fetch(own)
    put(tmp_path / "own.safetensors", DATA)
    with pytest.raises(WeightsError, match=f"damaged.*expected {own.sha256}.*Install hd2s again"):
        fetch(own)


# --- the folder -------------------------------------------------------------------------------------


def test_the_platforms_cache_folder_is_the_default(
    record: WeightRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HD2S_CACHE")
    for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "user"))
    path = fetch(record)
    assert path.parts[-3:-1] == ("hd2s", "weights")
    assert path.is_relative_to(tmp_path / "user")


def test_a_folder_that_cannot_be_made(record: WeightRecord, folder: Path) -> None:
    put(folder.parent, b"a file where the folder would be")
    with pytest.raises(OutputError, match=f"folder {folder} cannot be used.*HD2S_CACHE"):
        fetch(record)


def test_a_full_disk_keeps_what_fitted(server: Server, record: WeightRecord, folder: Path) -> None:
    with file_size_limit(HALF), pytest.raises(OutputError, match="cannot be used: File too large. Make room"):
        fetch(record)
    assert files(folder) == [PART]
    server.requests.clear()
    assert fetch(record).read_bytes() == DATA
    assert [request[1:3] for request in server.requests] == [(f"bytes={HALF}-", 206)]


# --- several at a time ------------------------------------------------------------------------------


def test_of_several_calls_one_downloads(server: Server, record: WeightRecord, folder: Path) -> None:
    results: list[bytes | HD2SError] = []

    def call() -> None:
        try:
            results.append(fetch(record).read_bytes())
        except HD2SError as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    server.hold.clear()
    for thread in threads:
        thread.start()
    threading.Timer(0.2, server.hold.set).start()
    for thread in threads:
        thread.join()
    assert results == [DATA] * 4
    assert len(server.requests) == 1


def test_another_process_waits_too(
    server: Server, record: WeightRecord, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder.parent / "data", DATA)
    folder.mkdir()
    script = f"""
import shutil, sys
from filelock import FileLock
with FileLock("{NAME}.lock"):
    print("locked", flush=True)
    sys.stdin.read()
    shutil.copy("../data", "{NAME}")
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        caplog.set_level("INFO", "hd2s")
        timer = threading.Timer(0.3, other.stdin.close)
        timer.start()
        assert fetch(record).read_bytes() == DATA
        timer.join()
    assert "another process is downloading it; waiting" in caplog.text
    assert server.requests == []
