"""From a source to maps (`predict`) or to files (`render`), with everything in between."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hd2s.data.frames import FrameSource
from hd2s.data.video import open_source
from hd2s.inference.engines import Engine, open_engine
from hd2s.inference.predictor import predict_frames
from hd2s.inference.writers import Style, made_at, open_writer, result_path
from hd2s.types import SaliencyFrame, VideoInfo

if TYPE_CHECKING:
    from hd2s.models import HD2S

_logger = logging.getLogger(__name__)

Source = str | Path | Iterable[NDArray[np.uint8]]


@dataclass
class RenderReport:
    """What became of one source.

    Attributes:
        results: {kind of result: where it is}, the ones that were there before included.
        num_frames: Frames predicted; 0 if all results were there before.
        seconds: Time taken.
        first_map_seconds: Time to the first map.
        problems: What went wrong although there are results; empty if all is fine.
    """

    results: dict[str, Path]
    num_frames: int = 0
    seconds: float = 0.0
    first_map_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def predict(
    source: Source,
    *,
    model: str | HD2S | Engine = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    post: str = "none",
    conspicuity: bool = False,
    stride: int = 1,
    fps: float = 25.0,
) -> Iterator[SaliencyFrame]:
    """Predict where people look, frame by frame, in bounded memory.

    Args:
        source: A video file, image, folder of images, URL, camera, or any iterable of (H, W, 3) uint8 RGB
            arrays; see `hd2s.data.video.open_source`.
        model: Name of the network, the network itself, or an engine that runs one.
        weights: See `hd2s.load`.
        domain: See `hd2s.load`.
        engine: "torch", "torch-compile", "openvino", or "auto": OpenVINO on a CPU where it is installed, else
            PyTorch; see `hd2s.inference.engines.open_engine`.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where there is a device, else the CPU.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it natively.
        post: Post-processing: "none", or "paper" as in the published inference.
        conspicuity: Also give the four conspicuity maps.
        stride: Show the network only every so-manieth frame and interpolate the maps in between; see
            `Predictor`.
        fps: Frames a second of images and arrays, which do not say it themselves.

    Yields:
        For each frame a `SaliencyFrame`: `saliency` is (H, W) float32 in [0, 1] at the source's size.

    Raises:
        HD2SError: The input, the model or the device cannot be used; see `hd2s.errors`.

    Warns:
        UserWarning: The video is damaged, but some of it could be predicted.

    Example:
        >>> import numpy as np
        >>> import hd2s
        >>> video = [np.full((90, 160, 3), 40 * i, np.uint8) for i in range(3)]
        >>> for frame in hd2s.predict(video, engine="torch"):
        ...     print(frame)
        SaliencyFrame(index=0, time_seconds=0.000, saliency=90x160)
        SaliencyFrame(index=1, time_seconds=0.040, saliency=90x160)
        SaliencyFrame(index=2, time_seconds=0.080, saliency=90x160)
    """
    network = open_engine(
        model, weights, domain, engine=engine, device=device, precision=precision, post=post
    )
    with open_source(source, fps=fps) as opened:
        with closing(predict_frames(opened, network, conspicuity=conspicuity, stride=stride)) as pairs:
            for _, result in pairs:
                yield result.enlarged
        for problem in opened.problems:
            warnings.warn(f"{opened.info.name}: {problem}", stacklevel=2)


def render(
    source: Source | FrameSource,
    out: str | Path,
    *,
    save: str | Sequence[str] = ("overlay",),
    model: str | HD2S | Engine = "hd2s-lite",
    style: Style | None = None,
    stride: int = 1,
    overwrite: bool = False,
    on_frame: Callable[[VideoInfo], None] | None = None,
) -> RenderReport:
    """Predict a source and write the results to a folder.

    A result appears under its final name only when it is complete. One that is there already is left as
    it is, unless its source was changed since or there was a problem with it; what is missing is made.

    Args:
        source: See `predict`, or a source that is open already; it is closed in the end.
        out: Folder for the results; made if it does not exist.
        save: One or several kinds of results: "overlay", "video", "maps", "npz", "gif", "csv",
            "conspicuity"; see `hd2s.inference.writers`.
        model: Name of the network, the network itself, or an engine that runs one.
        style: How results look; the defaults of `hd2s.Style` if None.
        stride: See `predict`.
        overwrite: Make results again that are there already.
        on_frame: Called after each frame, for showing progress.

    Raises:
        HD2SError: The input, the model or the output cannot be used; nothing is left in the folder then.
        KeyboardInterrupt: Nothing is left in the folder, but of a live source what was recorded is.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import hd2s
        >>> video = [np.full((90, 160, 3), 40 * i, np.uint8) for i in range(3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = hd2s.render(video, folder, save=["overlay", "csv"])
        ...     print(report.num_frames, sorted(path.name for path in report.results.values()))
        3 ['frames.csv', 'frames_overlay.mp4']
    """
    started = time.perf_counter()
    opened = source if isinstance(source, FrameSource) else open_source(source)
    with opened:
        kinds = [save] if isinstance(save, str) else save
        results = {kind: result_path(kind, opened.info.name, Path(out)) for kind in kinds}
        report = RenderReport(results)
        made = {kind: made_at(kind, path) for kind, path in results.items()}
        old = [kind for kind, when in made.items() if when is not None and when < opened.modified]
        missing = [kind for kind, when in made.items() if overwrite or when is None or kind in old]
        if not missing:
            return report
        if old and not overwrite:
            _logger.info("%s: results that are incomplete or older than it are made again", opened.info.name)
        network = open_engine(model)
        stopped = None
        with ExitStack() as stack:
            writers = [
                stack.enter_context(open_writer(kind, opened, Path(out), style=style)) for kind in missing
            ]
            pairs = stack.enter_context(
                closing(predict_frames(opened, network, conspicuity="conspicuity" in results, stride=stride))
            )
            try:
                for frame, result in pairs:
                    report.first_map_seconds = report.first_map_seconds or time.perf_counter() - started
                    for writer in writers:
                        writer.write(frame, result)
                    report.num_frames += 1
                    if on_frame:
                        on_frame(opened.info)
            except KeyboardInterrupt as interrupt:
                if not opened.info.live:
                    raise
                stopped = interrupt  # the only end that a live source has: keep what was recorded
    if stopped:
        raise stopped
    report.problems = [*opened.problems, *(problem for writer in writers for problem in writer.problems)]
    if report.problems:
        _make_old([results[kind] for kind in missing], opened.modified)
    report.seconds = time.perf_counter() - started
    return report


def _make_old(paths: Iterable[Path], modified: float) -> None:
    """Set results back to a time before their source was changed, so that they are made again next time."""
    for path in paths:
        with suppress(OSError):
            os.utime(path, (modified - 1, modified - 1))
