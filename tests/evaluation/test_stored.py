"""Predictions on disk: every form gives the same maps, and what is no prediction is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fake_datasets import write_grey
from fake_predictions import lively, write_images, write_video
from fakes import make_video
from hd2s.errors import DatasetFormatError, InputNotFoundError
from hd2s.evaluation.stored import StoredMaps, find_maps

COUNT = 11


@pytest.fixture
def maps() -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    return np.stack([lively(rng) for _ in range(COUNT)])


def write_coloured(path: Path, maps: NDArray[np.uint8]) -> None:
    for index, picture in enumerate(maps):
        write_grey(path / f"{index}.png", np.repeat(picture[..., None], 3, 2))


FORMS: dict[str, Callable[[Path, NDArray[np.uint8]], object]] = {
    "images": lambda folder, maps: write_images(folder / "clip", maps),
    "images of hd2s": lambda folder, maps: write_images(folder / "clip_maps", maps),
    "16 bits": lambda folder, maps: write_images(folder / "clip", maps.astype(np.uint16) * 257),
    "equal channels": lambda folder, maps: write_coloured(folder / "clip", maps),
    "video": lambda folder, maps: write_video(folder / "clip.mkv", maps),
    "video of hd2s": lambda folder, maps: write_video(folder / "clip_saliency.avi", maps),
    "levels": lambda folder, maps: np.savez(folder / "clip.npz", maps),
    "floats": lambda folder, maps: np.savez(folder / "clip.npz", maps / 255),
    "compressed": lambda folder, maps: np.savez_compressed(folder / "clip.npz", maps.astype("u2") * 257),
    "npz of hd2s": lambda folder, maps: np.savez(
        folder / "clip_saliency.npz", saliency=(maps / 255).astype(np.float32), time_seconds=np.arange(COUNT)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_maps(tmp_path: Path, form: str, maps: NDArray[np.uint8]) -> None:
    FORMS[form](tmp_path, maps)
    stored = find_maps(tmp_path, ["video", "clip"])
    assert stored.count() == COUNT
    read = list(stored.maps())
    assert [index for index, _ in read] == list(range(COUNT))
    np.testing.assert_allclose(np.stack([m for _, m in read]), maps / np.float32(255), rtol=0, atol=1e-6)
    assert all(m.dtype == np.float32 for _, m in read)
    some = dict(stored.maps(every=4))
    assert list(some) == [0, 4, 8]
    np.testing.assert_array_equal(some[8], read[8][1])


def test_a_single_image_is_a_prediction_of_a_still(tmp_path: Path, maps: NDArray[np.uint8]) -> None:
    write_grey(tmp_path / "osie-1001.png", maps[0])
    assert find_maps(tmp_path, ["osie-1001"]).count() == 1


def test_an_archive_is_preferred_as_it_is_exact(tmp_path: Path, maps: NDArray[np.uint8]) -> None:
    for form in ("video of hd2s", "images of hd2s", "npz of hd2s"):
        FORMS[form](tmp_path, maps)
    assert find_maps(tmp_path, ["clip"]).path.suffix == ".npz"


def test_a_fingerprint_changes_with_the_files(tmp_path: Path, maps: NDArray[np.uint8]) -> None:
    write_images(tmp_path / "clip", maps)
    before = find_maps(tmp_path, ["clip"]).fingerprint()
    assert find_maps(tmp_path, ["clip"]).fingerprint() == before
    write_grey(tmp_path / "clip" / "3.png", maps[0])
    assert find_maps(tmp_path, ["clip"]).fingerprint() != before


def test_what_is_missing_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    make_video(tmp_path / "clip_overlay.mp4")
    (tmp_path / "clip").mkdir()
    with pytest.raises(InputNotFoundError, match=r"no prediction of the video 'clip'.*NAME clip or c\.AVI"):
        find_maps(tmp_path, ["clip", "c.AVI"])


def write_cut(path: Path) -> None:
    np.savez_compressed(path / "clip.npz", np.random.default_rng(0).random((4, 24, 32)))
    data = bytearray((path / "clip.npz").read_bytes())
    data[5000:6000] = bytes(1000)
    (path / "clip.npz").write_bytes(data)


def write_red(path: Path) -> None:
    picture = np.zeros((24, 32, 3), np.uint8)
    picture[..., 2] = 200
    write_grey(path / "clip" / "1.png", picture)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "coloured images": (write_red, "is coloured"),
    "a coloured video": (lambda p: make_video(p / "clip.mp4"), "is coloured; maps must be grey"),
    "damaged images": (lambda p: write_grey(p / "clip" / "1.png", np.eye(9, dtype="u1")), "damaged|read"),
    "no archive": (lambda p: (p / "clip.npz").write_bytes(b"PK"), "cannot be read"),
    "a damaged archive": (write_cut, "is damaged"),
    "two arrays": (lambda p: np.savez(p / "clip.npz", a=np.eye(3), b=np.eye(3)), "holds the arrays a, b"),
    "one map": (lambda p: np.savez(p / "clip.npz", np.eye(3)), r"the shape \(3, 3\)"),
    "whole numbers": (lambda p: np.savez(p / "clip.npz", np.ones((2, 3, 4), int)), "the type int64"),
    "columns first": (lambda p: np.savez(p / "clip.npz", np.asfortranarray(np.ones((2, 3, 4)))), "C order"),
    "objects": (lambda p: np.savez(p / "clip.npz", np.array([[["a"]]], object)), "the type object"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_prediction_is_refused(tmp_path: Path, kind: str) -> None:
    write, message = BAD[kind]
    write(tmp_path)
    if kind == "damaged images":
        path = tmp_path / "clip" / "1.png"
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetFormatError, match=message):
        read(find_maps(tmp_path, ["clip"]))


def read(stored: StoredMaps) -> None:
    stored.count()
    for _ in stored.maps():
        pass


def test_a_video_without_colours_but_with_planes_for_them_is_read(tmp_path: Path) -> None:
    import av

    grey = np.full((24, 32), 128, np.uint8)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        i420 = np.concatenate([np.full_like(grey, 126), grey[:12]])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(i420, format="yuv420p")))
        container.mux(stream.encode(None))
    ((_, prediction),) = find_maps(tmp_path, ["clip"]).maps()
    np.testing.assert_allclose(prediction, (126 - 16) / 219, rtol=1e-6)
