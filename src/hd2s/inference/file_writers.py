"""Writers of numbers and still pictures: PNG files, NumPy archives and tables."""

from __future__ import annotations

import csv
import math
import shutil
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hd2s.data.frames import Frame
from hd2s.errors import InputShapeError
from hd2s.inference.pictures import quantize
from hd2s.inference.predictor import Prediction
from hd2s.inference.statistics import FrameStatistics, frame_statistics
from hd2s.inference.writer_base import Writer

_COPY_BYTES = 1 << 20
# Smooth maps hardly get smaller at higher levels, but take several times as long.
_PNG_LEVEL = 1


class MapsWriter(Writer):
    """A folder with a grey PNG for each frame, 000000.png on; level = saliency · (2 ** bits - 1)."""

    def __init__(self, path: Path, *, bits: Literal[8, 16]) -> None:
        super().__init__(path)
        self._bits = bits

    def _write(self, frame: Frame, result: Prediction) -> None:
        levels: NDArray[np.uint8] | NDArray[np.uint16]
        if self._bits == 8:
            levels = quantize(result.enlarged.saliency, 255)
        else:
            levels = np.rint(result.enlarged.saliency * np.float32(65535)).astype(np.uint16)
        # Not cv2.imwrite: it does not tell why it failed.
        encoded, data = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
        if not encoded:
            raise OSError(f"OpenCV cannot encode frame {frame.index} as PNG")
        self._partial.mkdir(exist_ok=True)
        (self._partial / f"{frame.index:06d}.png").write_bytes(data.tobytes())

    def _finish(self) -> None:
        """Do nothing: each file was complete when it was written."""


class CsvWriter(Writer):
    """A table with a line for each frame: its index, its time and `FrameStatistics`.

    Cells that an all-zero map has no number for are empty.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: IO[str] | None = None

    def _write(self, frame: Frame, result: Prediction) -> None:
        if self._file is None:
            self._file = self._open_files.enter_context(self._partial.open("w", encoding="utf-8", newline=""))
            names = [field.name for field in fields(FrameStatistics)]
            csv.writer(self._file, lineterminator="\n").writerow(["index", "time_seconds", *names])
        numbers = asdict(frame_statistics(result.enlarged.saliency)).values()
        cells = [frame.index, frame.time_seconds, *numbers]
        csv.writer(self._file, lineterminator="\n").writerow([_cell(number) for number in cells])

    def _finish(self) -> None:
        self._open_files.close()


class NpzWriter(Writer):
    """A NumPy archive of all frames.

    It holds `saliency` (N, H, W) float16, `time_seconds` (N,) float64 and, where they were predicted,
    `conspicuity` (N, 4, H, W) float16.

    The number of frames comes first in an array's file, but is known last. So the numbers wait in plain
    files, and are copied into the (uncompressed) archive in the end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._columns: dict[str, _Column] = {}

    def _write(self, frame: Frame, result: Prediction) -> None:
        arrays: dict[str, NDArray[np.generic]] = {
            "saliency": _half(result.enlarged.saliency),
            "time_seconds": np.asarray(frame.time_seconds, np.float64),
        }
        if result.enlarged.conspicuity is not None:
            arrays["conspicuity"] = _half(result.enlarged.conspicuity)
        for name, array in arrays.items():
            if not self.num_frames:
                file = self._open_files.enter_context(self._partial.with_name(f"{name}.raw").open("w+b"))
                self._columns[name] = _Column(file, array)
            self._columns[name].append(array)

    def _finish(self) -> None:
        with zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED) as archive:
            for name, column in self._columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    column.copy_to(member, self.num_frames)


def _half(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to float16. NumPy takes 70 ms for a 720p map with many values below 6e-5, torch takes one."""
    import torch  # here, so that the names of the writers can be listed without it

    half: NDArray[np.float16] = torch.from_numpy(np.ascontiguousarray(array)).half().numpy()
    return half


class _Column:
    """An array in a file that grows along its first axis."""

    def __init__(self, file: IO[bytes], first: NDArray[np.generic]) -> None:
        self._file = file
        self._shape = first.shape
        self._dtype = first.dtype

    def append(self, array: NDArray[np.generic]) -> None:
        if array.shape != self._shape:
            raise InputShapeError(f"All frames of an npz must be {self._shape} arrays, got {array.shape}.")
        self._file.write(array.tobytes())

    def copy_to(self, member: IO[bytes], length: int) -> None:
        """Write the `length` arrays in NumPy's format."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (length, *self._shape),
        }
        np.lib.format.write_array_header_2_0(member, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, member, _COPY_BYTES)


def _cell(number: float) -> str:
    """Write whole numbers as they are, others with six significant digits or more, and NaN as nothing."""
    if isinstance(number, int):
        return str(number)
    return "" if math.isnan(number) else f"{number:.6f}"
