"""`evaluate` as a whole: numbers against numpy, three levels of means, resumed runs, bad input."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import hd2s
from fake_datasets import make_avimos, make_dhf1k, write_grey
from fake_engine import BrightEngine
from fake_predictions import (
    HEIGHT,
    PLACES,
    WIDTH,
    Scene,
    make_scene,
    write_all,
    write_images,
    write_points,
)
from fakes import make_gaze_pack
from hd2s.data.datasets import open_dataset
from hd2s.errors import DatasetFormatError, InputNotFoundError, InputShapeError, UnknownNameError
from hd2s.evaluation import crew, run
from hd2s.evaluation.protocol import choose
from hd2s.evaluation.report import Report
from hd2s.evaluation.scoring import CENTRE, MEAN, PREDICTION, PREDICTORS, VIEWERS, Scorer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = make_scene(tmp_path / "data")
    write_all(tmp_path / "mine", scene)
    return scene


def score(scene: Scene, **options: object) -> Report:
    given = {"predictions": scene.root.parent / "mine", "metrics": ["cc", "nss"], **options}
    return hd2s.evaluate(scene.root, **given)  # type: ignore[arg-type]


def values(report: Report, video: str, predictor: str, metric: str) -> NDArray[np.float64]:
    scores = report.scores(video)
    assert scores is not None
    return scores.values[PREDICTORS.index(predictor), :, report.metrics.index(metric)]


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def standardised(prediction: NDArray[np.generic], points: NDArray[np.float64]) -> float:
    x, y = points.astype(int).T
    return float(((prediction - prediction.mean()) / prediction.std(ddof=1))[y, x].mean())


# --- numbers ----------------------------------------------------------------------------------------


def test_frames_videos_and_the_data_set_agree_with_numpy(scene: Scene) -> None:
    report = score(scene)
    of_videos = {"cc": [], "nss": []}
    for name in ("v1", "v2", "v3"):
        pairs = list(zip(scene.predictions[name], scene.densities[name], scene.points[name], strict=True))
        of_frames = {
            "cc": [correlation(p, d) for p, d, _ in pairs],
            "nss": [standardised(p.astype(float), f) for p, _, f in pairs],
        }
        for metric, expected in of_frames.items():
            np.testing.assert_allclose(values(report, name, PREDICTION, metric), expected, atol=2e-5)
            of_videos[metric].append(np.mean(expected))
    for metric, expected in of_videos.items():
        mean = report.mean(PREDICTION, metric)
        assert mean.mean == pytest.approx(np.mean(expected), abs=1e-5)
        assert mean.videos == 3
        assert min(expected) - 1e-5 <= mean.low < mean.mean < mean.high <= max(expected) + 1e-5
    assert report.failures == {}
    assert [video.frames for video in report.videos] == [3, 5, 4]


def test_every_second_frame_is_every_second_frame(scene: Scene) -> None:
    whole, some = score(scene), score(scene, every=2)
    scores = some.scores("v2")
    assert scores is not None
    assert scores.frames.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(
        values(some, "v2", PREDICTION, "cc"), values(whole, "v2", PREDICTION, "cc")[::2]
    )
    assert some.settings["frames"] == "one of 2, from the first on"


def test_predictions_are_brought_to_the_size_of_the_ground_truth(scene: Scene) -> None:
    large = {n: np.kron(m, np.ones((1, 2, 2), np.uint8)) for n, m in scene.predictions.items()}
    for name, maps in large.items():
        np.savez(scene.root.parent / "mine" / f"{name}.npz", maps)
    assert report_means(score(scene)) == pytest.approx(
        report_means(score(scene, preset="plain")), nan_ok=True
    )
    np.testing.assert_allclose(
        values(score(scene), "v1", PREDICTION, "cc"),
        [correlation(p, d) for p, d in zip(scene.predictions["v1"], scene.densities["v1"], strict=True)],
        atol=2e-5,
    )


def report_means(report: Report) -> list[float]:
    return [mean.mean for _, _, mean in report.rows()]


def test_baselines_stand_beside_and_are_what_they_say(scene: Scene) -> None:
    report = score(scene, metrics=["cc", "kld", "ig", "auc_shuffled"])
    assert list(report.labels) == [PREDICTION, CENTRE, MEAN, VIEWERS]
    assert report.mean(CENTRE, "ig").mean == 0
    assert report.mean(CENTRE, "auc_shuffled").mean == pytest.approx(0.5, abs=0.1)
    average = np.mean([d / d.sum() for d in scene.densities["train"].astype(float)], axis=0)
    expected = [correlation(average, d) for d in scene.densities["v3"]]
    # It is kept at another size, and so is blurred a bit.
    np.testing.assert_allclose(values(report, "v3", MEAN, "cc"), expected, atol=0.02)
    assert report.settings["centre prior"].endswith("standard deviation of 0.25 of each side")


def test_even_viewers_predict_odd_ones(scene: Scene) -> None:
    import cv2

    def blurred(points: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = np.zeros((HEIGHT, WIDTH))
        for x, y in points.astype(int):
            counts[y, x] += 1
        sigma = 0.03 * WIDTH
        return cv2.GaussianBlur(counts, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)

    report = score(scene)
    points = scene.points["v2"]
    expected = [correlation(blurred(frame[::2]), blurred(frame[1::2])) for frame in points]
    np.testing.assert_allclose(values(report, "v2", VIEWERS, "cc"), expected, atol=2e-5)
    expected = [standardised(blurred(frame[::2]), frame[1::2]) for frame in points]
    np.testing.assert_allclose(values(report, "v2", VIEWERS, "nss"), expected, atol=2e-5)


def test_a_data_set_without_training_labels_says_so(scene: Scene) -> None:
    (scene.root / "train.txt").unlink()
    report = score(scene)
    assert MEAN not in report.labels
    assert "train.txt is missing" in report.settings["mean training map"]


def test_a_training_map_that_has_seen_the_videos_says_so(scene: Scene) -> None:
    assert "it has seen the very videos" in score(scene, split="all").settings["mean training map"]
    assert "it has seen" not in score(scene).settings["mean training map"]


def test_a_single_video_has_no_interval_and_no_negatives(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "data", (3,))
    write_all(tmp_path / "mine", scene)
    report = score(scene, metrics=["cc", "auc_shuffled"])
    mean = report.mean(PREDICTION, "cc")
    assert np.isnan([mean.low, mean.high]).all()
    assert report.mean(PREDICTION, "auc_shuffled").videos == 0
    assert report.videos[0].notes == ["no s-AUC, as there are no fixations in other videos"]


def test_images_of_a_folder_count_as_one_video(tmp_path: Path) -> None:
    root = make_gaze_pack(tmp_path, images=11)
    report = hd2s.evaluate(root, model=BrightEngine(), metrics=["cc"], every=6)
    units = report.units(PREDICTION, "cc")
    assert list(units) == ["Tennis", "osie", "crowd", "scene"]
    osie = [values(report, f"osie-{n:03d}", PREDICTION, "cc")[0] for n in (0, 10)]
    assert units["osie"] == pytest.approx(np.mean(osie))
    assert report.mean(PREDICTION, "cc").mean == pytest.approx(np.mean(list(units.values())))
    assert report.labels[PREDICTION] == "BrightEngine"


def test_a_network_is_scored_as_its_saved_predictions_are(scene: Scene) -> None:
    direct = score(scene, predictions=None, model=BrightEngine())
    for name in ("v1", "v2", "v3"):
        maps = [f.saliency for f in hd2s.predict(scene.root / "frames" / name, model=BrightEngine())]
        np.savez(scene.root.parent / "mine" / f"{name}.npz", np.stack(maps))
    assert report_means(score(scene)) == pytest.approx(report_means(direct), nan_ok=True)


# --- presets ----------------------------------------------------------------------------------------


def test_the_preset_of_a_benchmark_is_that_of_its_data(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    rng = np.random.default_rng(0)
    for name in ("0601", "602"):
        write_images(tmp_path / "mine" / name, rng.integers(0, 256, (12, 32, 48), np.uint8))
    report = hd2s.evaluate(root, predictions=tmp_path / "mine")
    assert report.settings["preset"].startswith("dhf1k")
    assert report.settings["compared at"] == "360 x 640"
    assert report.settings["coincident fixations"] == "count once"
    assert report.metrics == ("auc_judd", "sim", "auc_shuffled", "cc", "nss")
    notes = "ground truth brought from 32 x 48 to the 360 x 640 of the preset"
    assert all(notes in video.notes for video in report.videos)
    # One has no fixations, the other no others to draw from; and all maps are of one level.
    assert report.mean(PREDICTION, "nss").videos == 1
    assert report.mean(PREDICTION, "auc_shuffled").videos == 0
    assert report.mean(PREDICTION, "cc").videos == 0


def test_multiplicity_is_that_of_the_preset(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "data", (2, 2))
    write_all(tmp_path / "mine", scene)
    twice = scene.points["v1"].copy()
    twice[:, 1:3] = twice[:, :1]  # three of four look at the same place
    write_points(scene.root, "v1", twice)
    each, once = score(scene, preset="plain"), score(scene, preset="mit")
    prediction = scene.predictions["v1"][0].astype(float)
    assert values(each, "v1", PREDICTION, "nss")[0] == pytest.approx(
        standardised(prediction, twice[0]), abs=1e-4
    )
    assert values(once, "v1", PREDICTION, "nss")[0] == pytest.approx(
        standardised(prediction, twice[0, [0, 3]]), abs=1e-4
    )


def test_predictions_are_rounded_where_the_preset_says_so(scene: Scene) -> None:
    fine = scene.predictions["v1"] / 255 * 0.01
    np.savez(scene.root.parent / "mine" / "v1.npz", fine)
    plain, mit = score(scene), score(scene, preset="mit")
    expected = [correlation(np.rint(p * 255), d) for p, d in zip(fine, scene.densities["v1"], strict=True)]
    np.testing.assert_allclose(values(mit, "v1", PREDICTION, "cc"), expected, atol=1e-4)
    assert abs(values(plain, "v1", PREDICTION, "cc") - expected).max() > 0.05


def test_rounding_refuses_maps_on_another_scale(scene: Scene) -> None:
    np.savez(scene.root.parent / "mine" / "v1.npz", scene.predictions["v1"].astype(np.float32))
    assert score(scene).failures == {}
    message = score(scene, preset="mit").failures["v1"]
    assert "reaches from 0 to 255" in message
    assert "use the preset 'plain'" in message


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "mti"}, UnknownNameError, "Unknown preset 'mti'. Did you mean 'mit'"),
        ({"metrics": ["cc", "auc"]}, UnknownNameError, "Unknown metric 'auc'"),
        ({"every": 0}, InputShapeError, "must be 1 or more, got 0"),
        ({"predictions": "gone"}, InputNotFoundError, "There is no folder 'gone' with predictions"),
        ({"predictions": None, "model": "hd2s-light"}, UnknownNameError, "Did you mean 'hd2s-lite'"),
    ],
)
def test_wrong_arguments_are_errors(
    scene: Scene, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        score(scene, **options)


# --- bad input --------------------------------------------------------------------------------------


def test_a_video_whose_counts_differ_is_named_and_left_out(scene: Scene) -> None:
    folder = scene.root.parent / "mine"
    (folder / "v2" / "5.png").unlink()
    (folder / "v3" / "1.png").write_bytes(b"no image")
    report = score(scene)
    assert list(report.failures) == ["v2", "v3"]
    assert report.failures["v2"].startswith("The video v2 has 5 frames, but there are 4 predictions in")
    assert "1.png" in report.failures["v3"]
    assert report.mean(PREDICTION, "cc").videos == report.mean(CENTRE, "cc").videos == 1


def test_a_missing_prediction_is_a_failure_of_its_video(scene: Scene) -> None:
    for path in (scene.root.parent / "mine" / "v1").iterdir():
        path.unlink()
    assert "There is no prediction of the video 'v1'" in score(scene).failures["v1"]


def test_no_prediction_at_all_is_an_error(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match="no prediction of the video 'v1'"):
        score(scene, predictions=tmp_path / "empty")


def test_videos_without_labels_are_counted_and_a_split_of_them_is_an_error(tmp_path: Path) -> None:
    root = make_avimos(tmp_path)
    with pytest.raises(DatasetFormatError, match="can be predicted, but not scored"):
        hd2s.evaluate(root, split="test", dataset="ntire2026", model=BrightEngine())
    report = hd2s.evaluate(root, split="all", dataset="ntire2026", model=BrightEngine(), every=4)
    assert [video.name for video in report.videos] == ["0001", "0002"]
    assert any("1 videos have neither maps nor fixations" in note for note in report.notes)


def test_what_says_nothing_is_skipped_and_counted(scene: Scene) -> None:
    broken = (scene.predictions["v2"] / 255).astype(np.float32)
    broken[0, 3, 4] = np.nan
    broken[1] = 0.5
    np.savez(scene.root.parent / "mine" / "v2.npz", broken)
    points = scene.points["v2"].copy()
    points[2] = np.nan  # nobody looks
    points[3, 0] = (WIDTH + 1, 2)
    write_points(scene.root, "v2", points)
    write_grey(scene.root / "maps" / "v2" / "5.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    report = score(scene)
    video = report.videos[1]
    assert video.skipped == {
        "constant predictions": 1,
        "fixations outside of the picture": 2,  # one, in two halves: that of its viewer has none then
        "frames with an empty density map": 1,
        "frames without fixations": 1,
        "predictions with nan or infinity": 1,
    } | {"fixations outside of the picture": 1}
    assert report.skipped() == dict(sorted(video.skipped.items()))
    scores = report.scores("v2")
    assert scores is not None
    assert (scores.frames.tolist(), scores.fixations.tolist()) == ([0, 1, 3, 4], [PLACES, PLACES, 3, PLACES])
    assert np.isnan(values(report, "v2", PREDICTION, "cc")).tolist() == [True, True, False, True]
    assert np.isnan(values(report, "v2", PREDICTION, "nss")).tolist() == [True, True, False, False]
    expected = [correlation(scene.predictions["v2"][3], scene.densities["v2"][3])]
    assert video.means[0, 0] == pytest.approx(np.mean(expected), abs=1e-5)
    assert video.scored[0].tolist() == [1, 2]


def test_maps_are_let_go_one_by_one(scene: Scene) -> None:
    (video, *_) = open_dataset(scene.root).videos
    alive: list[weakref.ref[NDArray[np.float32]]] = []
    most = 0

    def maps() -> Iterator[tuple[int, NDArray[np.float32]]]:
        nonlocal most
        for index in range(3):
            array = np.random.default_rng(index).random((HEIGHT, WIDTH), np.float32)
            alive.append(weakref.ref(array))
            yield index, array
            del array
            most = max(most, sum(ref() is not None for ref in alive))

    Scorer(video, choose("generic", None, ["cc"], 1)).score(maps())
    assert most == 1


def test_a_damaged_video_that_lacks_frames_is_not_scored(tmp_path: Path) -> None:
    root = make_avimos(tmp_path)
    path = root / "Videos" / "0002.mp4"
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[3:]:
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    options = {"dataset": "ntire2026", "model": BrightEngine(), "metrics": ["cc"]}
    report = hd2s.evaluate(root, split="all", **options)  # type: ignore[arg-type]
    assert list(report.failures) == ["0002"]
    expected = r"The video 0002 is damaged, and \d of its 8 frames are missing, .* \(damaged near frame"
    assert re.match(expected, report.failures["0002"])
    with pytest.raises(DatasetFormatError, match="No video of .* could be scored. The video 0002 is damaged"):
        hd2s.evaluate(root, **options)  # type: ignore[arg-type]


def test_maps_that_end_too_early_are_counted(scene: Scene) -> None:
    (video, *_) = open_dataset(scene.root).videos
    maps = ((index, scene.predictions["v1"][index] / np.float32(255)) for index in range(2))
    scores = Scorer(video, choose("generic", None, ["cc"], 1)).score(maps)
    assert scores.skipped == {"frames without a prediction": 1}
    assert scores.frames.tolist() == [0, 1]


# --- resuming ---------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that are scored, in order."""
    names: list[str] = []
    original = crew.Worker.score

    def noted(self: crew.Worker, video: hd2s.data.datasets.AnnotatedVideo) -> None:
        names.append(video.name)
        original(self, video)

    monkeypatch.setattr(crew.Worker, "score", noted)
    return names


def test_a_run_that_was_stopped_goes_on(scene: Scene, tmp_path: Path, scored: list[str]) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("videos", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(scene, out=tmp_path / "out", on_progress=stop)
    assert scored == ["v1", "v2"]
    seen: list[tuple[str, int, int]] = []
    report = score(scene, out=tmp_path / "out", on_progress=lambda *step: seen.append(step))
    assert scored == ["v1", "v2", "v3"]
    frames = [("frames", count, 4) for count in range(1, 5)]  # of the video that was not scored yet
    assert seen == [("videos", 2, 3), *frames, ("videos", 3, 3)]
    assert report_means(report) == report_means(score(scene))
    assert list((tmp_path / "out").rglob("*.partial")) == []


def test_only_what_changed_is_scored_again(scene: Scene, tmp_path: Path, scored: list[str]) -> None:
    score(scene, out=tmp_path / "out")
    write_images(tmp_path / "mine" / "v2", scene.predictions["v2"][::-1])
    score(scene, out=tmp_path / "out")
    assert scored == ["v1", "v2", "v3", "v2"]
    score(scene, out=tmp_path / "out", preset="mit")
    assert scored[4:] == ["v1", "v2", "v3"]
    score(scene, out=tmp_path / "out", overwrite=True)
    assert len(scored) == 10
    (settings, *_) = (tmp_path / "out" / "scores").glob("*/settings.json")
    assert json.loads(settings.read_text())["version"] == hd2s.__version__


def test_other_predictions_share_the_scores_of_baselines(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = scene.points["v1"].copy()
    points[1, 1::2] = np.nan  # the viewers with odd numbers look away
    write_points(scene.root, "v1", points)
    metrics = ["cc", "auc_shuffled"]
    first = score(scene, out=tmp_path / "out", metrics=metrics)
    other = Scene(scene.root, {n: m[::-1] for n, m in scene.predictions.items()}, {}, {})
    write_all(tmp_path / "other", other)
    counts: list[int] = []
    original = Scorer._compare

    def counted(self: Scorer, maps: list[NDArray[np.float32]], *rest: Any) -> NDArray[np.float64]:
        counts.append(len(maps))
        return original(self, maps, *rest)

    monkeypatch.setattr(Scorer, "_compare", counted)
    second = score(scene, out=tmp_path / "out", metrics=metrics, predictions=tmp_path / "other")
    assert counts == [1] * 12
    alone = score(scene, metrics=metrics, predictions=tmp_path / "other")
    assert max(counts) == 3
    assert report_means(second) == report_means(alone)
    assert report_means(second)[2:] == report_means(first)[2:]
    assert report_means(second)[:2] != report_means(first)[:2]
    assert second.skipped() == alone.skipped() == {"frames with viewers in one half only": 1}


def test_scores_follow_the_training_map_and_fixations_elsewhere(scene: Scene, tmp_path: Path) -> None:
    (scene.root / "train.txt").rename(tmp_path / "train.txt")
    assert MEAN not in score(scene, out=tmp_path / "out").labels
    (tmp_path / "train.txt").rename(scene.root / "train.txt")
    report = score(scene, out=tmp_path / "out")
    assert report_means(report) == report_means(score(scene))
    assert MEAN in report.labels


def test_damaged_results_are_made_again(scene: Scene, tmp_path: Path, scored: list[str]) -> None:
    report = score(scene, out=tmp_path / "out")
    path = report.store.path("v1")
    path.write_bytes(path.read_bytes()[:100])
    assert report_means(score(scene, out=tmp_path / "out")) == report_means(report)
    assert scored[3:] == ["v1"]


def test_nothing_is_kept_without_a_folder(scene: Scene) -> None:
    report = score(scene)
    folder = report.store.folder
    assert folder.is_dir()
    del report
    assert not folder.exists()


@pytest.mark.slow
def test_several_processes_give_the_same_numbers(scene: Scene) -> None:
    metrics = ["cc", "auc_borji", "auc_shuffled"]
    (scene.root.parent / "mine" / "v2" / "5.png").unlink()
    frames: list[tuple[int, int, int]] = []

    def show(what: str, done: int, total: int) -> None:
        if what == "frames":
            frames.append((jobs, done, total))

    reports = []
    for jobs in (1, 2):
        reports.append(score(scene, metrics=metrics, jobs=jobs, on_progress=show))
    one, two = reports
    assert report_means(one) == report_means(two)
    assert frames[6] == (1, 7, 12)  # none of v2
    assert frames[-1] == (2, 7, 12)
    assert all("in score\n" in report.traces["v2"] for report in (one, two))
    assert one.failures == two.failures
    assert list(one.failures) == ["v2"]
    assert run.evaluate is hd2s.evaluate
