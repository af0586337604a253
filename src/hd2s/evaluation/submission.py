"""Predictions in the form that a benchmark takes them, checked as far as that is possible here.

| benchmark | form |
|---|---|
| dhf1k | `<method>/<video>/<frame>.png`: 8 bits, the size of the video, frames from 0001 on |
| aim2024, ntire2026 | `<method>/<video>.mp4`: a grey video with the frames, rate and size of the input |

DHF1K: "Results submission" in the README of wenguanwang/DHF1K. It wants frames named as its script
generate_frame.m does; four digits from 1 on are what its annotations have. The challenges: bench.py in
msu-video-group's repositories extracts the frames of both videos with FFmpeg, and wants as many.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from hd2s.data.datasets import AnnotatedVideo, open_dataset
from hd2s.data.datasets.listing import files
from hd2s.data.datasets.maps import luma, read_grey
from hd2s.data.frames import Frame, FrameSource
from hd2s.data.images import image_size
from hd2s.data.seek import SeekableVideo
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError, UnknownNameError
from hd2s.evaluation.crew import Crew, Doer, told
from hd2s.evaluation.sources import source_of
from hd2s.inference.pictures import quantize
from hd2s.inference.predictor import Prediction, Slot
from hd2s.inference.video_writers import SaliencyVideoWriter
from hd2s.inference.writer_base import Writer


class Form(ABC):
    """How a benchmark takes the predictions of a video."""

    @abstractmethod
    def path(self, folder: Path, video: AnnotatedVideo) -> Path:
        """Return where they are in the folder of the method."""

    @abstractmethod
    def writer(self, path: Path, source: FrameSource) -> Writer:
        """Make what writes them."""

    @abstractmethod
    def check(self, path: Path, video: AnnotatedVideo) -> Iterator[str]:
        """Read what was written; yield what the benchmark would not take."""


class ImagesForm(Form):
    """A folder of grey PNG files of 8 bits."""

    def path(self, folder: Path, video: AnnotatedVideo) -> Path:
        """See `Form`."""
        return folder / video.name

    def writer(self, path: Path, source: FrameSource) -> Writer:
        """See `Form`."""
        return _NumberedImages(path)

    def check(self, path: Path, video: AnnotatedVideo) -> Iterator[str]:
        """Compare names and headers of all images; decode the one in the middle."""
        names, wanted = files(path), [f"{index + 1:04d}.png" for index in range(video.num_frames)]
        if names != wanted:
            yield f"{path} holds {len(names)} images, the video has {len(wanted)} frames: 0001.png and on"
        size = video.pictures.size
        others = [name for name in names if image_size(path / name) != size]
        if others:
            yield f"{path / others[0]} and {len(others) - 1} more have not the {size} pixels of the video"
        if names and not read_grey(path / names[len(names) // 2]).any():
            yield f"{path / names[len(names) // 2]} is black"


class VideoForm(Form):
    """A grey video."""

    def path(self, folder: Path, video: AnnotatedVideo) -> Path:
        """See `Form`."""
        return folder / f"{video.name}.mp4"

    def writer(self, path: Path, source: FrameSource) -> Writer:
        """See `Form`."""
        return SaliencyVideoWriter(path, source)

    def check(self, path: Path, video: AnnotatedVideo) -> Iterator[str]:
        """Compare frames, size and rate by the packets; decode the picture in the middle."""
        written = SeekableVideo(path)
        count, size = len(written), (written.info.height, written.info.width)
        if count != video.num_frames:
            yield f"{path} has {count} frames, the input {video.num_frames}"
        if size != video.pictures.size:
            yield f"{path} is {size} (H, W), the input {video.pictures.size}"
        if abs(float(written.info.fps) - video.fps) > 0.01 * video.fps:
            yield f"{path} has {float(written.info.fps):.3f} frames a second, the input {video.fps:.3f}"
        if count and not luma(written.pictures([count // 2])[0]).any():
            yield f"{path} is black"


class _NumberedImages(Writer):
    """A folder with a grey PNG of 8 bits for each frame, 0001.png on."""

    def _write(self, frame: Frame, result: Prediction) -> None:
        encoded, data = cv2.imencode(".png", quantize(result.enlarged.saliency, 255))
        if not encoded:
            raise OSError(f"OpenCV cannot encode frame {frame.index} as PNG")
        self._partial.mkdir(exist_ok=True)
        (self._partial / f"{frame.index + 1:04d}.png").write_bytes(data.tobytes())

    def _finish(self) -> None:
        """Do nothing: each file was complete when it was written."""


FORMS: dict[str, Form] = {"dhf1k": ImagesForm(), "aim2024": VideoForm(), "ntire2026": VideoForm()}


@dataclass
class SubmissionWriter(Doer):
    """Writes the predictions of one video at a time and checks them."""

    form: Form
    folder: Path
    overwrite: bool

    def submit(self, video: AnnotatedVideo) -> None:
        """Write what is not there yet.

        Raises:
            HD2SError: The video or its predictions cannot be read, or the benchmark would not take them.
        """
        path = self.form.path(self.folder, video)
        if self.overwrite or not path.exists():
            self._write(path, video)
        problems = list(self.form.check(path, video))
        if problems:
            raise DatasetFormatError("; ".join(problems))

    def _write(self, path: Path, video: AnnotatedVideo) -> None:
        with ExitStack() as stack:
            opened = stack.enter_context(open_source(video.source, fps=video.fps))
            writer = stack.enter_context(self.form.writer(path, opened))
            pairs = stack.enter_context(closing(self.source.pairs(video, opened)))
            for frame, saliency in told(pairs, self):
                size = frame.picture.height, frame.picture.width
                writer.write(frame, Prediction(Slot(frame.index, frame.time_seconds, size), saliency))


@dataclass
class Verdict:
    """What became of a submission.

    Attributes:
        folder: What to send: the folder of the method.
        videos: Videos that are as the benchmark wants them.
        frames: Frames of these.
        problems: {video: what is wrong}; empty if all is fine.
        traces: {video: the traceback of that}.
    """

    folder: Path
    videos: int = 0
    frames: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Say it in a line."""
        good = f"{self.videos} videos with {self.frames} frames have the right names, counts and sizes"
        return f"{good}; {len(self.problems)} do not" if self.problems else f"complete: {good}"


def submit(
    root: str | Path,
    benchmark: str,
    out: str | Path,
    *,
    split: str = "test",
    dataset: str | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: Any = None,
    **predictions: Any,
) -> Verdict:
    """Write the predictions of a split as a benchmark takes them, and check what was written.

    What is there already is only checked.

    Args:
        root: Folder of the data set.
        benchmark: "dhf1k", "aim2024" or "ntire2026".
        out: Folder in which that of the method is made.
        split: Part of the data set.
        dataset: Name of its layout; None finds it by looking.
        jobs: See `evaluate`.
        overwrite: Write again what is there.
        on_progress: See `evaluate`; of how many frames is not known (None).
        **predictions: `predictions`, `model`, `weights`, `domain`, `engine`, `device`, `post` of `evaluate`.

    Raises:
        HD2SError: There is no such benchmark, or the data set, the predictions or the model cannot be used.
    """
    if benchmark not in FORMS:
        raise UnknownNameError.among("benchmark to submit to", benchmark, FORMS)
    data = open_dataset(root, split, dataset)
    source = source_of(data.videos, **predictions)
    verdict = Verdict(Path(out) / source.name)
    show = on_progress or (lambda what, done, total: None)
    frames, total = 0, len(data.videos)

    def advance(by: int) -> None:
        nonlocal frames
        frames += by
        if by:
            show("frames", frames, None)

    show("videos", 0, total)
    writer = SubmissionWriter(FORMS[benchmark], verdict.folder, overwrite, source=source)
    with Crew(writer, jobs if source.identity() is not None else 1) as crew:
        for done, (video, error) in enumerate(crew.map("submit", data.videos, advance), 1):
            if error is None:
                verdict.videos += 1
                verdict.frames += video.num_frames
            else:
                verdict.traces[video.name] = "".join(traceback.format_exception(error))
                verdict.problems[video.name] = str(error)
            show("videos", done, total)
    return verdict


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Turn a verdict into what JSON can hold."""
    shown = {name: value for name, value in vars(verdict).items() if name != "traces"}
    return {**shown, "folder": str(verdict.folder), "complete": not verdict.problems}
