"""Weight files from the network: downloaded once, checked, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from hd2s.errors import HD2SError, InputNotFoundError, OutputError, WeightsError
from hd2s.weights.cache import cache_folder
from hd2s.weights.catalog import WeightRecord

OnProgress = Callable[[int, int | None], None]
"""Is told how many bytes are there, and of how many; None if the server does not say."""

_logger = logging.getLogger(__name__)
_WAITS_SECONDS = (0.0, 1.0, 4.0)  # before each attempt
_TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK_BYTES = 2**16
_SLACK = 2  # a file whose size is only roughly known may be so many times larger
_PASSING = {408, 429, 500, 502, 503, 504}  # answers that may be others in a moment
_RANGE_NOT_SATISFIABLE = 416


def fetch(record: WeightRecord, on_progress: OnProgress | None = None) -> Path:
    """Return where a weight file lies, after downloading it if need be.

    A download goes to the cache folder, under a temporary name until it is whole. One that was interrupted
    is continued. Of several calls at a time, in any processes, one downloads and the others wait.

    Args:
        record: Of the file, from the catalogue.
        on_progress: Is called with the bytes that are there and their total, or None if that is unknown.

    Returns:
        The path of the whole file, whose hash is the recorded one.

    Raises:
        WeightsError: The record has no link, the download failed or is not the recorded file, or the file
            in the package is damaged.
        InputNotFoundError: The server has no such file, or the package lacks its own.
        OutputError: The cache folder cannot be written.

    Example:
        >>> from hd2s.weights.catalog import find
        >>> fetch(find("hd2s-lite")).name  # it comes along
        'hd2s-lite.safetensors'
    """
    if record.path is not None:
        _check_own(record, record.path)
        return record.path
    if record.url is None:
        raise WeightsError(f"The weights '{record.name}' cannot be downloaded. {record.advice}")
    target = cached_path(record.url)
    try:
        if not _is_whole(target, record.sha256):
            with _alone(target):
                if not _is_whole(target, record.sha256):  # another process may have been faster
                    _Download(record, record.url, target, on_progress or (lambda done, total: None)).run()
    except HD2SError:
        raise
    except OSError as error:
        raise OutputError(
            f"The folder {target.parent} cannot be used: {error.strerror or error}. Make room or choose "
            "another cache folder with HD2S_CACHE; the same command then goes on."
        ) from error
    return target


def cached_path(url: str) -> Path:
    """Return where the file of an address lies once it is downloaded."""
    return cache_folder() / "weights" / Path(urlsplit(url).path).name


class _CutError(Exception):
    """The connection did not last; another attempt may go on."""


@dataclass(frozen=True)
class _Download:
    """A download of one file to `target`, by way of `target`.part."""

    record: WeightRecord
    url: str
    target: Path
    on_progress: OnProgress

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def sizes(self) -> tuple[int, float]:
        """The fewest and the most bytes that the file can have."""
        size = self.record.size_bytes
        if size is None:
            return 0, math.inf
        return (size, size) if self.record.size_is_exact else (0, _SLACK * size)

    def run(self) -> None:
        """Complete the part, check it and give it its name."""
        left_over = _size(self.part) > 0
        self._attempt()
        found = _sha256(self.part)
        if found.startswith(self.record.sha256):
            os.replace(self.part, self.target)
            return
        self.part.unlink()
        if left_over:  # the beginning may have been another file's
            self.run()
            return
        raise self._wrong(f"its SHA-256 is {found}, expected {self.record.sha256}")

    def _attempt(self) -> None:
        """Receive what the part lacks, some times if the connection is cut."""
        reason: Exception | None = None
        for wait in _WAITS_SECONDS:
            time.sleep(wait)
            try:
                self._receive()
            except _CutError as error:
                reason = error
            else:
                return
        have = _size(self.part)
        kept = f"The {have} bytes that arrived are kept: the same command goes on from there" if have else ""
        raise WeightsError(
            f"Downloading '{self.record.name}' from {self.url} failed {len(_WAITS_SECONDS)} times, last "
            f"because {reason}. {kept or 'Check the connection and try again'}. {self._by_hand()}"
        ) from reason

    def _receive(self) -> None:
        """Ask for what the part lacks and append it."""
        offset = _size(self.part)
        answer = self._open(offset)
        if answer is None:
            return
        with answer:
            if answer.status == http.client.PARTIAL_CONTENT:
                given = answer.headers.get("Content-Range", "")
                if not given.startswith(f"bytes {offset}-"):
                    self.part.unlink(missing_ok=True)
                    raise _CutError(f"the server sent '{given}' instead of the bytes from {offset} on")
            else:
                offset = 0  # the server sends the whole file
            total = None if answer.length is None else offset + answer.length
            least, most = self.sizes
            if total is not None and not least <= total <= most:
                raise self._wrong(f"it has {total} bytes instead of {self.record.size_bytes}")
            done = self._store(answer, offset, total)
        if done > most:
            self.part.unlink()
            raise self._wrong(f"it has more than {most} bytes")
        if total is not None and done < total:
            raise _CutError(f"the connection was cut after {done} of {total} bytes")

    def _open(self, offset: int) -> http.client.HTTPResponse | None:
        """Ask for the file from a byte on; None if the server says that there is nothing from there on."""
        headers = {"User-Agent": "hd2s"} | ({"Range": f"bytes={offset}-"} if offset else {})
        try:
            answer: http.client.HTTPResponse = _opener().open(
                urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT_SECONDS
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _RANGE_NOT_SATISFIABLE and offset:
                return None
            if error.code in _PASSING:
                raise _CutError(f"the server answered {error.code} {error.reason}") from error
            raise InputNotFoundError(
                f"'{self.record.name}' could not be downloaded: for {self.url} the server answered "
                f"{error.code} {error.reason}. {self._by_hand()}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(f"of {getattr(error, 'reason', error)!r}") from error
        return answer

    def _store(self, answer: http.client.HTTPResponse, offset: int, total: int | None) -> int:
        """Write what arrives behind the first `offset` bytes of the part; return how far it came.

        No more is written than the file can have.
        """
        done = offset
        with self.part.open("ab" if offset else "wb") as file:
            self.on_progress(done, total)
            for chunk in _chunks(answer):
                done += len(chunk)
                if done > self.sizes[1]:
                    break
                file.write(chunk)
                self.on_progress(done, total)
        return done

    def _wrong(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self.url} is not the file of '{self.record.name}': {reason}. It was not kept. Try again from "
            f"another network, as something on the way may have replaced it. {self._by_hand()}"
        )

    def _by_hand(self) -> str:
        """Say how to do without the download."""
        return f"If you have the file from elsewhere, put it at {self.target}."


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = answer.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(f"of {error!r}") from error
        if not chunk:
            return
        yield chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses only, and none from an encrypted one to another."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request.

        Raises:
            HTTPError: It would go where it must not.
        """
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise urllib.error.HTTPError(req.full_url, code, f"{msg}, refused: {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Make what opens addresses; unlike urllib's own it knows no files, FTP or data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other processes and threads from downloading the same file meanwhile."""
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _logger.info("%s: another process is downloading it; waiting", target.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_own(record: WeightRecord, path: Path) -> None:
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist. Install hd2s again to replace it.")
    found = _sha256(path)
    if found != record.sha256:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is {found}, expected {record.sha256}. Install hd2s again to "
            "replace it."
        )


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path).startswith(sha256)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
