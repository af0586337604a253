"""Where predictions come from: a network that runs now, or files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hd2s.data.datasets import AnnotatedVideo
from hd2s.data.frames import Frame, FrameSource
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError, InputNotFoundError
from hd2s.evaluation.stored import StoredMaps, find_maps
from hd2s.evaluation.truth import Map
from hd2s.inference import engines
from hd2s.inference.predictor import predict_frames

if TYPE_CHECKING:
    from hd2s.inference.engines import Engine
    from hd2s.models import HD2S


class Source(ABC):
    """Gives the predicted maps of a video. It can be sent to workers if it has an `identity`."""

    name: str  # fit for a folder
    label: str  # in tables
    needs_threads = False  # of PyTorch
    problems: Sequence[str] = ()  # with the video that was read last, although it could be read

    @abstractmethod
    def identity(self) -> dict[str, Any] | None:
        """Return what decides on the maps; None if that cannot be told, and nothing is to be kept."""

    @abstractmethod
    def fingerprint(self, video: AnnotatedVideo) -> str:
        """Return what changes when the predictions of a video do, beside `identity`.

        Raises:
            HD2SError: There are none.
        """

    @abstractmethod
    def maps(self, video: AnnotatedVideo, every: int) -> Generator[tuple[int, Map]]:
        """Yield the number and the map (H, W) of every so many frames.

        Raises:
            HD2SError: The video or its prediction cannot be read.
        """

    @abstractmethod
    def pairs(self, video: AnnotatedVideo, opened: FrameSource) -> Generator[tuple[Frame, Map]]:
        """Yield all frames of a video that is open, with their maps (H, W).

        Raises:
            HD2SError: The video or its prediction cannot be read.
        """


@dataclass
class Network(Source):
    """A network by name, opened when it is first used, or one that is open already."""

    model: str | HD2S | Engine = "hd2s-lite"
    weights: Path | None = None
    domain: str | None = None
    engine: str = "auto"
    device: str = "auto"
    post: str = "none"

    def __post_init__(self) -> None:
        self._opened: Engine | None = None
        self.label = self.name = self.model if isinstance(self.model, str) else type(self.model).__name__
        if self.weights is not None:
            self.label += f" ({self.weights.name})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    def identity(self) -> dict[str, Any] | None:
        """See `Source`."""
        if not isinstance(self.model, str):
            return None
        weights = "those that come along"
        if self.weights is not None:
            try:
                weights = hashlib.sha256(self.weights.read_bytes()).hexdigest()
            except OSError as error:
                raise InputNotFoundError(
                    f"The weights {self.weights} cannot be read: {error.strerror}."
                ) from error
        return {**asdict(self), "weights": weights}

    def open(self) -> Engine:
        """Open the engine, once.

        Raises:
            HD2SError: See `open_engine`.
        """
        if self._opened is None:
            self._opened = engines.open_engine(
                self.model,
                self.weights,
                self.domain,
                engine=self.engine,
                device=self.device,
                precision="float32",  # scores are those of the network, whatever the machine can do
                post=self.post,
            )
            self.needs_threads = self._opened.name != "openvino"
        return self._opened

    def fingerprint(self, video: AnnotatedVideo) -> str:
        """See `Source`."""
        return ""

    def maps(self, video: AnnotatedVideo, every: int) -> Generator[tuple[int, Map]]:
        """See `Source`."""
        with (
            open_source(video.source, fps=video.fps) as opened,
            closing(self.pairs(video, opened)) as pairs,
        ):
            for frame, saliency in pairs:
                if frame.index % every == 0:
                    yield frame.index, saliency
            self.problems = tuple(opened.problems)

    def pairs(self, video: AnnotatedVideo, opened: FrameSource) -> Generator[tuple[Frame, Map]]:
        """See `Source`."""
        with closing(predict_frames(opened, self.open())) as pairs:
            for frame, result in pairs:
                yield frame, result.enlarged.saliency


@dataclass
class Files(Source):
    """Predictions in a folder."""

    folder: Path
    aliases: dict[str, list[str]]  # what the predictions of each video may be called

    def __post_init__(self) -> None:
        self.label = self.name = self.folder.resolve().name or "predictions"

    @classmethod
    def of(cls, folder: Path, videos: list[AnnotatedVideo]) -> Files:
        """Look into a folder; videos go by their name, and by that of their file where it tells them apart.

        Raises:
            InputNotFoundError: There is no such folder, or no prediction of any of the videos.
        """
        if not folder.is_dir():
            raise InputNotFoundError(f"There is no folder '{folder}' with predictions.")
        stems = [video.source.stem for video in videos]
        aliases = {}
        for video, stem in zip(videos, stems, strict=True):
            unique = stems.count(stem) == 1 and stem != video.name
            aliases[video.name] = [video.name, stem] if unique else [video.name]
        files = cls(folder, aliases)
        if not any(files.has(video) for video in videos):
            files.find(videos[0])
        return files

    def has(self, video: AnnotatedVideo) -> bool:
        """Tell whether there are predictions of a video."""
        try:
            self.find(video)
        except InputNotFoundError:
            return False
        return True

    def find(self, video: AnnotatedVideo) -> StoredMaps:
        """Find the predictions of a video.

        Raises:
            InputNotFoundError: There are none.
        """
        return find_maps(self.folder, self.aliases[video.name])

    def identity(self) -> dict[str, Any]:
        """See `Source`."""
        return {"predictions": str(self.folder.resolve())}

    def fingerprint(self, video: AnnotatedVideo) -> str:
        """See `Source`."""
        return self.find(video).fingerprint()

    def maps(self, video: AnnotatedVideo, every: int) -> Generator[tuple[int, Map]]:
        """See `Source`."""
        stored = self.find(video)
        count, wanted = stored.count(), video.num_frames
        if count != wanted:
            raise DatasetFormatError(
                f"The video {video.name} has {wanted} frames, but there are {count} predictions in "
                f"{stored.path}. Each frame needs one."
            )
        height, width = video.pictures.size
        padded = height + height % 2, width + width % 2  # H.264 has even sizes only
        for index, prediction in stored.maps(every):
            if prediction.shape == padded:
                prediction = prediction[:height, :width]
            yield index, prediction

    def pairs(self, video: AnnotatedVideo, opened: FrameSource) -> Generator[tuple[Frame, Map]]:
        """See `Source`."""
        with closing(self.maps(video, 1)) as maps:
            for frame, (_, prediction) in zip(opened, maps, strict=False):
                yield frame, prediction


def source_of(
    videos: list[AnnotatedVideo],
    *,
    predictions: str | Path | None = None,
    model: str | HD2S | Engine = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    post: str = "none",
) -> Source:
    """Make a source of a folder with predictions or else of a model, and find out whether it can be used.

    Raises:
        HD2SError: It cannot.
    """
    if predictions is not None:
        return Files.of(Path(predictions), videos)
    network = Network(model, None if weights is None else Path(weights), domain, engine, device, post)
    network.open()
    return network
