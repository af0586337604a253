"""Submissions have the form that the benchmark takes, and what has not is found."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import hd2s
from fake_datasets import make_avimos, make_dhf1k
from fake_engine import BrightEngine
from fake_predictions import write_images
from fakes import make_video
from hd2s.data.datasets.maps import luma, read_grey
from hd2s.errors import InputNotFoundError, UnknownNameError
from hd2s.evaluation.submission import submit, to_dict


def test_dhf1k_takes_a_folder_of_images_for_each_video(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    verdict = submit(root, "dhf1k", tmp_path / "out", model=BrightEngine())
    assert verdict.folder == tmp_path / "out" / "BrightEngine"
    assert verdict.summary() == "complete: 1 videos with 12 frames have the right names, counts and sizes"
    names = sorted(path.name for path in (verdict.folder / "0701").iterdir())
    assert names == [f"{number:04d}.png" for number in range(1, 13)]
    expected = [f.saliency for f in hd2s.predict(root / "video" / "0701.AVI", model=BrightEngine())]
    for name, saliency in zip(names, expected, strict=True):
        path = verdict.folder / "0701" / name
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.uint8
        np.testing.assert_allclose(read_grey(path), saliency, atol=0.51 / 255)


@pytest.mark.parametrize("benchmark", ["aim2024", "ntire2026"])
def test_the_challenges_take_a_video_for_each_video(tmp_path: Path, benchmark: str) -> None:
    root = make_avimos(tmp_path / "data")
    verdict = submit(root, benchmark, tmp_path, dataset=benchmark, split="all", model=BrightEngine())
    assert (verdict.videos, verdict.frames, verdict.problems) == (3, 24, {})
    assert sorted(p.name for p in verdict.folder.iterdir()) == ["0001.mp4", "0002.mp4", "0010.mp4"]
    expected = [f.saliency for f in hd2s.predict(root / "Videos" / "0010.mp4", model=BrightEngine())]
    with av.open(str(verdict.folder / "0010.mp4")) as container:
        written = [luma(picture) for picture in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(written) == 8
    np.testing.assert_allclose(np.stack(written), np.stack(expected), atol=6 / 255)


def test_predictions_on_disk_are_brought_into_the_form(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    maps = np.random.default_rng(0).integers(0, 256, (12, 64, 96), np.uint8)
    write_images(tmp_path / "mine" / "0701", maps)
    seen: list[tuple[str, int, int | None]] = []
    options = {"predictions": tmp_path / "mine", "on_progress": lambda *step: seen.append(step)}
    verdict = submit(root, "dhf1k", tmp_path / "out", **options)  # type: ignore[arg-type]
    frames = [("frames", count, None) for count in range(1, 13)]
    assert seen == [("videos", 0, 1), *frames, ("videos", 1, 1)]
    assert (verdict.folder.name, verdict.problems) == ("mine", {})
    fifth = read_grey(verdict.folder / "0701" / "0005.png")
    averaged = maps[4].reshape(32, 2, 48, 2).mean((1, 3)) / 255
    np.testing.assert_allclose(fifth, averaged, atol=0.51 / 255)


@pytest.mark.slow
def test_several_processes_write_a_submission(tmp_path: Path) -> None:
    root = make_avimos(tmp_path / "data")
    for name in ("0001", "0002"):
        write_images(tmp_path / "mine" / name, np.full((8, 32, 48), 99, np.uint8))
    options = {"dataset": "aim2024", "split": "all", "predictions": tmp_path / "mine", "jobs": 2}
    verdict = submit(root, "aim2024", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert (verdict.videos, verdict.frames, list(verdict.problems)) == (2, 16, ["0010"])
    assert "in submit\n" in verdict.traces["0010"]


def test_what_is_there_is_checked_and_what_is_wrong_with_it_found(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    options = {"model": BrightEngine(), "split": "all"}
    verdict = submit(root, "dhf1k", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert verdict.videos == 5
    folder = verdict.folder
    (folder / "0001" / "0012.png").unlink()
    cv2.imwrite(str(folder / "0002" / "0003.png"), np.zeros((5, 6), np.uint8))
    cv2.imwrite(str(folder / "0601" / "0007.png"), np.zeros((32, 48), np.uint8))
    (folder / "0602" / "0007.png").write_bytes(b"no image")
    verdict = submit(root, "dhf1k", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert "holds 11 images, the video has 12 frames" in verdict.problems["0001"]
    assert "0003.png and 0 more have not the (32, 48) pixels" in verdict.problems["0002"]
    assert "0007.png is black" in verdict.problems["0601"]
    assert "0007.png" in verdict.problems["0602"]
    assert verdict.summary().startswith("1 videos with 12 frames have")
    assert verdict.summary().endswith("; 4 do not")
    assert to_dict(verdict)["complete"] is False
    again = submit(root, "dhf1k", tmp_path / "out", **options, overwrite=True)  # type: ignore[arg-type]
    assert again.problems == {}


def test_a_video_of_another_length_is_found(tmp_path: Path) -> None:
    root = make_avimos(tmp_path / "data")
    verdict = submit(root, "aim2024", tmp_path, dataset="aim2024", model=BrightEngine())
    (root / "Videos" / "0010.mp4").rename(tmp_path / "shorter.mp4")
    make_video(root / "Videos" / "0010.mp4", num_frames=7, height=34, fps=30)
    verdict = submit(root, "aim2024", tmp_path, dataset="aim2024", model=BrightEngine())
    problem = verdict.problems["0010"]
    assert "has 8 frames, the input 7" in problem
    assert "is (32, 48) (H, W), the input (34, 48)" in problem
    assert "has 25.000 frames a second, the input 30.000" in problem


def test_unknown_benchmarks_and_missing_predictions_are_errors(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    with pytest.raises(UnknownNameError, match="Unknown benchmark to submit to 'mit'. "):
        submit(root, "mit", tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputNotFoundError, match="no prediction of the video '0701'"):
        submit(root, "dhf1k", tmp_path, predictions=tmp_path / "mine")
