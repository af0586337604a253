"""What all writers share: a result gets its final name only when it is complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import av

from hd2s.data.frames import Frame
from hd2s.errors import HD2SError, OutputError
from hd2s.inference.predictor import Prediction

_FILE_IN_THE_WAY = "A file is where the folder should be: choose another folder (--output)."
_ADVICE = {
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.ENOSPC: "Free some space or choose another folder.",
    errno.EDQUOT: "Free some space or choose another folder.",
    errno.EFBIG: "The file system or a limit of this process allows no larger file; choose another folder.",
    errno.ENAMETOOLONG: "Rename the input to something shorter.",
}


class Writer(AbstractContextManager["Writer"], ABC):
    """Writes one result, frame by frame, in constant memory.

    It is a context manager. What is written goes into a hidden temporary folder beside `path`; on a clean
    exit the result is moved to `path` in one step, replacing what was there. After an exception (Ctrl-C, too)
    or without a single frame the temporary folder is removed and `path` is left as it was.

    Attributes:
        path: The file or folder that appears in the end.
        problems: What could not be done as asked although the result is usable, in sentences for the user.
        num_frames: Frames written so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.num_frames = 0
        self._folder: Path | None = None
        self._open_files = ExitStack()

    def __enter__(self) -> Writer:
        """Make the folders.

        Raises:
            OutputError: The folder of `path` cannot be made or written to.
        """
        with self._translated():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            prefix, suffix = f".{self.path.name[:100]}-", ".partial"
            self._folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=self.path.parent))
        return self

    def write(self, frame: Frame, result: Prediction) -> None:
        """Append a frame and its prediction.

        Raises:
            OutputError: The disk is full or fails.
        """
        with self._translated():
            self._write(frame, result)
        self.num_frames += 1

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Move the complete result to `path`, or remove what there is of it.

        Raises:
            OutputError: The rest cannot be written or moved; what there is of it is removed.
        """
        try:
            if exc_type is None and self.num_frames:
                with self._translated():
                    self._finish()
                    self._publish()
        finally:
            # The first error counts, not one that follows from it while open files are closed.
            with suppress(OSError, av.FFmpegError):
                self._open_files.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _partial(self) -> Path:
        """Where the result is written before it moves to `path`; names beside it are free for scratch."""
        if self._folder is None:
            raise RuntimeError(f"Open the writer of '{self.path}' in a with statement before writing to it.")
        return self._folder / f"result{self.path.suffix}"

    @abstractmethod
    def _write(self, frame: Frame, result: Prediction) -> None:
        """Append a frame; open what is needed at the first one and leave closing it to `_open_files`."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what comes after the last frame and close `_partial`; called if there was a frame."""

    def _publish(self) -> None:
        """Move the result to its final name; a folder in the way is moved aside first and goes in the end."""
        aside = self._partial.with_name("replaced")
        replaces_folder = self._partial.is_dir() and self.path.is_dir()
        if replaces_folder:
            os.replace(self.path, aside)
        try:
            os.replace(self._partial, self.path)
        except OSError:
            if replaces_folder:
                os.replace(aside, self.path)
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except HD2SError:
            raise
        except (OSError, av.FFmpegError) as error:
            code = error.errno
            reason = error.strerror or str(error)
            advice = _ADVICE.get(code or 0, "Check the folder and its permissions, or choose another one.")
            raise OutputError(f"Cannot write '{self.path}': {reason}. {advice}") from error
