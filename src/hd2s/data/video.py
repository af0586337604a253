"""The door to pictures: open any input as a `FrameSource`, and turn arguments into a list of inputs."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from hd2s.data.container import ContainerSource
from hd2s.data.frames import MAX_PIXELS, ArraySource, Frame, FrameSource, yuv_matrix
from hd2s.data.images import IMAGE_SUFFIXES, ImageSource, natural_key
from hd2s.errors import InputNotFoundError, VideoDecodeError

__all__ = [
    "MAX_PIXELS",
    "Frame",
    "FrameSource",
    "expand_inputs",
    "natural_key",
    "open_source",
    "yuv_matrix",
]

# FFmpeg's input format for cameras, and the address of camera N in it.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}
_CAMERA_DEVICE = re.compile(r"/dev/video\d+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a drive


def open_source(source: str | Path | Iterable[NDArray[np.uint8]], *, fps: float = 25.0) -> FrameSource:
    """Open an input for reading its frames once.

    Args:
        source: A video file, a folder of images (read in natural order), an image, a URL, a camera
            (`/dev/video0`, or its number, such as "0", where no file has that name), or any iterable of
            (H, W, 3) uint8 RGB arrays.
        fps: Frames a second of images and arrays, which do not say it themselves.

    Returns:
        The source, open: use it in a `with` statement.

    Raises:
        InputNotFoundError: There is no such file, folder or camera.
        VideoDecodeError: The input exists but gives no pictures, or too large ones.
        InputShapeError: Images differ in size, or arrays are no RGB pictures.
    """
    if not isinstance(source, (str, Path)):
        return ArraySource(source, fps)
    text = str(source)
    if isinstance(source, str) and _URL.match(text):
        return ContainerSource(text, name=_url_name(text), may_be_live=True)
    path = Path(source)
    if _CAMERA_DEVICE.fullmatch(text) or text.isdecimal() and not os.path.exists(path):
        return _open_camera(int(text.removeprefix("/dev/video")))
    if not os.path.exists(path):  # Path.exists raises an OSError if the name is too long
        if glob.has_magic(text):  # what `expand_inputs` left
            raise InputNotFoundError(
                f"The pattern '{text}' matches nothing in '{os.getcwd()}'. Patterns may hold *, ?, [...] and "
                "**; check the folder and the suffix."
            )
        raise InputNotFoundError(
            f"There is no file or folder '{text}'. Inputs are video files, folders of images, images, "
            "patterns such as 'clips/*.mp4', URLs and cameras such as /dev/video0."
        )
    if path.is_dir():
        return ImageSource.of_folder(path, fps)
    if path.stat().st_size == 0 and path.is_file():
        raise VideoDecodeError(f"The file '{text}' is empty. Fetch or record it again.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], path.stem, fps)
    return ContainerSource(f"file:{path}", name=path.stem)  # without file:, FFmpeg takes a:b.mp4 for a URL


def expand_inputs(arguments: Sequence[str]) -> list[str]:
    """Replace patterns by the paths that match, in natural order; drop repeated inputs.

    Args:
        arguments: Paths, patterns (`*`, `?`, `[...]`, `**`), URLs and cameras. What exists under its own
            name is never taken for a pattern; all but patterns are returned as given.

    Returns:
        Inputs for `open_source`, each once. A pattern that matches nothing stays, for it to complain about.
    """
    inputs: dict[str, str] = {}
    for argument in arguments:
        if _URL.match(argument):
            inputs.setdefault(argument, argument)
            continue
        for path in _matches(argument):
            inputs.setdefault(os.path.normcase(os.path.abspath(path)), path)
    return list(inputs.values())


def _matches(argument: str) -> list[str]:
    """Expand one argument that is no URL."""
    if not glob.has_magic(argument) or os.path.exists(argument):
        return [argument]
    return sorted(glob.glob(argument, recursive=True), key=natural_key) or [argument]


def _open_camera(number: int) -> FrameSource:
    """Open a camera by its number."""
    if sys.platform not in _CAMERAS:
        raise InputNotFoundError(
            f"Camera {number} cannot be opened: cameras work on Linux and macOS only. Pass a URL or a file."
        )
    device_format, address = _CAMERAS[sys.platform]
    try:
        return ContainerSource(
            address.format(number), name=f"camera{number}", device_format=device_format, may_be_live=True
        )
    except InputNotFoundError as error:
        present = sorted(glob.glob("/dev/video*"), key=natural_key)
        raise InputNotFoundError(
            f"No camera {number} ({address.format(number)}). Present: {', '.join(present) or 'none'}."
        ) from error


def _url_name(url: str) -> str:
    """Name a URL by its last part, or else by its host."""
    parts = urlsplit(url)
    return PurePosixPath(parts.path).stem or parts.hostname or "stream"
