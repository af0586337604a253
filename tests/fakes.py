"""Tiny inputs for the tests: videos and folders with a moving blob, a gaze pack, a lively network."""

from __future__ import annotations

import csv
import functools
import http.server
import resource
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from hd2s.models import HD2SLite
from hd2s.types import InputSpec

MILLISECONDS = Fraction(1, 1000)
SAMPLE_RATE = 16_000
# An eighth of the work of hd2s-lite's own size.
SMALL_SPEC = InputSpec(height=64, width=96, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


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


def make_gaze_pack(root: Path, *, images: int = 3, num_frames: int = 18) -> Path:
    """Write a miniature gaze pack whose viewers look at the bright spot; returns `root`.

    Each folder of stills holds `images` pictures of 36 x 48 pixels, the first for validation; there is
    one video to train on ("Kimono") and one to validate on ("Tennis"), of `moving_blob` at 25 fps.
    """
    rng = np.random.default_rng(0)
    for folder in ("osie", "crowd", "scene"):
        (root / folder / "images").mkdir(parents=True)
        rows = []
        for number in range(images):
            x, y = rng.integers(8, 40), rng.integers(8, 28)
            picture = rng.integers(40, 90, (36, 48, 3), np.uint8)
            cv2.circle(picture, (int(x), int(y)), 5, (255, 230, 120), -1)
            write_image(root / folder / "images" / f"{number:03d}.jpg", picture)
            rows += [(f"{number:03d}.jpg", viewer, x + viewer % 3 - 1, y, 250) for viewer in range(6)]
        _write_table(root / folder / "fixations.csv", ("image", "viewer", "x", "y", "duration_ms"), rows)
    for folder in ("videos", "fixations"):
        (root / "hevc" / folder).mkdir(parents=True)
    for name in ("Kimono", "Tennis"):
        make_video(root / "hevc" / "videos" / f"{name}.mp4", num_frames=num_frames)
        rows = [
            (viewer, 40 * i, 39, min(46, round(48 * (i + 0.5) / num_frames)) + viewer % 3 - 1, 16)
            for i in range(num_frames)
            for viewer in range(6)
        ]
        columns = ("viewer", "start_ms", "duration_ms", "x", "y")
        _write_table(root / "hevc" / "fixations" / f"{name}.csv", columns, rows)
    return root


def lively_model(spec: InputSpec = SMALL_SPEC, seed: int = 0, domain_specific: bool = False) -> HD2SLite:
    """Build `hd2s-lite` with random weights whose maps vary from place to place and frame to frame.

    As initialised, the signal would fade on its way and all maps be nearly constant: any two networks
    would agree. So the batch norms get the statistics of a random clip. That makes a random network
    chaotic, which would blow up rounding errors: small residual branches and last layers tame it.
    """
    generator = torch.Generator().manual_seed(seed)
    model = HD2SLite(spec, domain_specific).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.normal_(0.0, (2.0 / parameter[0].numel()) ** 0.5, generator=generator)
        for block in model.encoder.network.blocks:
            if block.residual:
                block.project.norm.weight.fill_(0.2)
        damping = (0.4, 0.4, 0.2, 0.04)  # of each level's logits: the deeper, the wilder
        for collapse, decoder, factor in zip(model.collapses, model.decoders, damping, strict=True):
            for parameter in (collapse.filter, collapse.mixtures):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            decoder.head.weight.mul_(factor)
            decoder.head.bias.zero_()
        model.fusion.weight.fill_(0.5)
        model.fusion.bias.fill_(-0.5)
        model.centre.slopes.copy_(torch.tensor([[0.1, 0.2], [-0.1, 0.1]]))
        _calibrate(model, generator)
    return model


def _calibrate(model: HD2SLite, generator: torch.Generator) -> None:
    """Give each batch norm the statistics of clips of soft random blotches."""
    norms = [(norm, norm.momentum) for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm, _ in norms:
        norm.train().momentum = 1.0
    size = model.spec.num_frames, model.spec.height, model.spec.width
    coarse = torch.randn(2, 3, size[0] // 4, size[1] // 8, size[2] // 8, generator=generator)
    model(F.interpolate(coarse, size=size, mode="trilinear"))
    for norm, momentum in norms:
        norm.eval().momentum = momentum


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


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


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Make this process fail to write beyond a size, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line on standard error for each."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """Serve a folder on this machine for a while; gives the address."""
    bound = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()
