"""Tiny videos and folders of frames for the tests: a bright blob that moves over a textured ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

MILLISECONDS = Fraction(1, 1000)
SAMPLE_RATE = 16_000


def moving_blob(num_frames: int = 20, height: int = 32, width: int = 48) -> Iterator[NDArray[np.uint8]]:
    """Yield (H, W, 3) RGB uint8 frames: an orange blob walks to the right, all differ."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    ground = np.stack([60 + 40 * columns / width, 90 + 40 * rows / height, 110 + 0 * rows], axis=-1)
    colour = np.array([255, 160, 40], dtype=np.float32)
    for index in range(num_frames):
        centre = width * (index + 0.5) / num_frames
        distance = ((columns - centre) ** 2 + (rows - height / 2) ** 2) / (height / 6) ** 2
        weight = np.exp(-distance / 2)[..., None]
        yield np.rint(ground * (1 - weight) + colour * weight).astype(np.uint8)


def make_video(
    path: Path,
    *,
    num_frames: int = 20,
    height: int = 32,
    width: int = 48,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio: bool = False,
    rotation: int = 0,
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a video of `moving_blob`; the container follows from the suffix of `path`.

    Args:
        path: File to write.
        num_frames: Number of frames; 0 writes a video stream without frames.
        height: Coded height in pixels (before rotation).
        width: Coded width in pixels (before rotation).
        fps: Frames a second.
        codec: FFmpeg encoder, such as "libx264", "mpeg4", "libvpx-vp9", "libx265" (64x48 or more), "ffv1".
        pix_fmt: Coded pixel format, such as "yuv420p10le", "gray", "yuva420p", "rgb8".
        audio: Add a mono tone (AAC, or Opus for WebM) as long as the video.
        rotation: Rotation metadata, degrees counter-clockwise, a multiple of 90.
        pts: A time stamp in milliseconds for each frame, instead of a constant rate.
        options: Options of the encoder, such as {"g": "5"}.
        container_options: Options of the muxer, such as {"movflags": "faststart"}.

    Returns:
        `path`.
    """
    if codec == "libx265":  # talks on standard error, and corrupts memory below its block size
        if width < 64:
            raise ValueError(f"libx265 crashes on pictures less than 64 pixels wide, got {width}.")
        options = {"x265-params": "log-level=none", **(options or {})}
    time_base = MILLISECONDS if pts is not None else Fraction(1, fps)
    stamps = list(pts) if pts is not None else list(range(num_frames))
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=fps, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = time_base
        if rotation:
            video.set_display_rotation(rotation)
        if audio:
            _add_tone(container, len(stamps) / fps, "libopus" if path.suffix == ".webm" else "aac")
        container.start_encoding()
        for stamp, rgb in zip(stamps, moving_blob(num_frames, height, width), strict=True):
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            picture.pts, picture.time_base = stamp, time_base
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


def make_audio(path: Path, *, seconds: float = 0.5) -> Path:
    """Write a file with a tone and without a video stream; returns `path`."""
    with av.open(str(path), "w") as container:
        _add_tone(container, seconds, "aac")
    return path


def make_folder(
    path: Path, *, num_frames: int = 5, height: int = 32, width: int = 48, suffix: str = ".png"
) -> Path:
    """Write frames of `moving_blob` as img1, img2, ... img10: names that only natural order sorts right."""
    path.mkdir(parents=True)
    for index, rgb in enumerate(moving_blob(num_frames, height, width), start=1):
        write_image(path / f"img{index}{suffix}", rgb)
    return path


def write_image(path: Path, rgb: NDArray[np.uint8]) -> Path:
    """Write one (H, W, 3) RGB uint8 picture in the format of the suffix; returns `path`."""
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"OpenCV cannot write '{path}'.")
    return path


def _add_tone(container: av.container.OutputContainer, seconds: float, codec: str) -> None:
    """Add and write a mono 440 Hz tone."""
    rate = 48_000 if codec == "libopus" else SAMPLE_RATE
    stream = container.add_stream(codec, rate=rate, layout="mono")
    times = np.arange(max(1, round(seconds * rate))) / rate
    samples = (0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
    for piece in resampler.resample(frame) + resampler.resample(None):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
