"""Batches and validation samples: repeatable, of the right shape, with targets where the picture has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fakes import SMALL_SPEC, make_gaze_pack
from hd2s.data.datasets import gaze
from hd2s.data.transforms import SIGMA_FRACTION, density_map
from hd2s.errors import DatasetFormatError
from hd2s.training.data import (
    Batch,
    EpochSampler,
    TrainingBatches,
    ValidationSamples,
    load_footage,
)
from hd2s.training.recipe import MixRecipe, load_recipe

LITE = Path(__file__).parents[2] / "recipes" / "lite.toml"
HEIGHT, WIDTH, FRAMES = SMALL_SPEC.height, SMALL_SPEC.width, SMALL_SPEC.num_frames
PLAIN = ("augment.brightness=0", "augment.contrast=0", "augment.grey=0", "augment.blur=0")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gaze_pack(tmp_path_factory.mktemp("data") / "gaze", images=5)


def batches(root: Path, *changes: str, min_fixations: int = 5) -> TrainingBatches:
    sizes = (
        "images.epochs=0",
        "data.stills=2",
        "data.pans=1",
        "data.clips=2",
        "data.batches=3",
        "data.bars=0",
    )
    recipe = load_recipe(LITE, [*sizes, *changes])
    assert isinstance(recipe, MixRecipe)
    footage = load_footage(gaze.videos(root, "train"), min_fixations)
    return TrainingBatches(gaze.stills(root, "train"), footage, SMALL_SPEC, recipe)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- training batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("stills", [0, 2])
@pytest.mark.parametrize("pans", [0, 1])
@pytest.mark.parametrize("clips", [0, 2])
def test_batches_hold_what_the_recipe_says(root: Path, stills: int, pans: int, clips: int) -> None:
    if not stills + pans + clips:
        pytest.skip("recipes refuse this")
    data = batches(root, f"data.stills={stills}", f"data.pans={pans}", f"data.clips={clips}")
    for index in range(3):
        batch = data[0, index]
        assert batch.stills.shape == (stills, 3, HEIGHT, WIDTH)
        assert batch.clips.shape == (pans + clips, 3, FRAMES, HEIGHT, WIDTH)
        assert batch.targets.shape == (stills + pans + clips, HEIGHT, WIDTH)
        assert batch.windows.shape == (stills + pans + clips, 2, 2)
        assert {tensor.dtype for tensor in batch} == {torch.float32}
        assert (batch.targets.flatten(1).sum(1) > 0).all(), (
            "a target without fixations cannot be learned from"
        )


def test_batches_depend_on_seed_epoch_and_index_alone(root: Path) -> None:
    first, second = batches(root), batches(root)
    keys = [(epoch, index) for epoch in range(2) for index in range(3)]
    forwards = {key: first[key] for key in keys}
    backwards = {key: second[key] for key in reversed(keys)}
    assert all(same(forwards[key], backwards[key]) for key in keys)
    assert not any(same(forwards[a], forwards[b]) for a in keys for b in keys if a < b)
    assert not same(batches(root, "seed=2")[0, 0], forwards[0, 0])


def test_an_epoch_shows_every_image_before_any_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = batches(root, "data.stills=3", "data.pans=1", "data.batches=6", "data.clips=0")
    shown: list[int] = []
    for part in ("_still", "_pan"):
        original = getattr(data, part)
        monkeypatch.setattr(data, part, lambda i, *rest, f=original: shown.append(i) or f(i, *rest))
    for index in range(6):
        _ = data[0, index]
    assert len(shown) == 24
    assert sorted(shown[:12]) == sorted(shown[12:]) == list(range(12))
    assert shown[:12] != shown[12:]


def test_the_first_epochs_show_images_alone(root: Path) -> None:
    data = batches(root, "images.epochs=2", "images.batch=5")
    for epoch in range(2):
        assert (len(data[epoch, 1].stills), len(data[epoch, 1].clips)) == (5, 0)
    assert (len(data[2, 1].stills), len(data[2, 1].clips)) == (2, 3)


def test_windows_say_which_part_is_shown(root: Path) -> None:
    data = batches(root, *PLAIN, "augment.crop=1", "augment.min_side=1", "augment.max_side=1.5")
    batch = data[0, 0]
    for picture, window in zip((*batch.stills, *batch.clips[:, :, -1]), batch.windows, strict=True):
        (top, height), (start, width) = window.tolist()
        left = start if width > 0 else start + width
        assert left <= 0 < 1 <= left + abs(width)
        lit = picture.sum(0) > picture.sum(0).min() + 1e-3  # bars are black
        rows, columns = lit.any(1).nonzero(), lit.any(0).nonzero()
        assert (rows.min() / HEIGHT).item() == pytest.approx(-top / height, abs=0.05)
        assert (len(rows) / HEIGHT, len(columns) / WIDTH) == pytest.approx(
            (1 / height, 1 / abs(width)), abs=0.07
        )


def test_bars_leave_the_whole_picture_in_the_middle(root: Path) -> None:
    data = batches(root, *PLAIN, "data.stills=12", "data.pans=0", "data.clips=4", "data.bars=1")
    windows = data[0, 0].windows
    start, extent = windows.unbind(2)  # (16, [y, x])
    torch.testing.assert_close(start + extent / 2, torch.full_like(start, 0.5))
    sides = extent.abs()
    assert ((sides.amin(1) - 1).abs() < 1e-6).all()
    assert ((sides.amax(1) > 1.2) & (sides.amax(1) < 3.2)).all()
    assert 0 < (sides[:, 0] > 1).sum() < len(sides)
    images = batches(root, *PLAIN, "images.epochs=1", "data.bars=1", "augment.crop=0")
    assert (images[0, 0].windows[..., 1].abs() == 1).all()  # not while there are images alone


@pytest.mark.parametrize("change", ["grey", "blur"])
def test_samples_may_lose_colour_or_sharpness(root: Path, change: str) -> None:
    sizes = ("data.stills=4", "data.pans=0", "data.clips=0", "augment.crop=0", *PLAIN)
    plain, changed = (batches(root, *sizes, *more)[0, 0].stills for more in ((), (f"augment.{change}=1",)))
    colour = [(stills - stills.mean(1, keepdim=True)).abs().max().item() for stills in (plain, changed)]
    detail = [stills.diff(dim=-1).abs().mean().item() for stills in (plain, changed)]
    assert colour[0] > 0.1
    assert (colour[1] < 1e-5) == (change == "grey")
    assert (detail[1] < 0.95 * detail[0]) == (change == "blur")


def test_pans_move_and_stills_do_not(root: Path) -> None:
    data = batches(root, *PLAIN, "data.stills=0", "data.pans=2", "data.clips=0")
    for index in range(3):
        for clip in data[0, index].clips:
            steps = (clip[:, 1:] - clip[:, :-1]).abs().mean(dim=(0, 2, 3))
            assert (steps > 0).all()
            assert steps.max() < 4 * steps.median(), "a pan is even: no jump on the way"


def test_light_changes_from_sample_to_sample_but_not_within_a_clip(root: Path) -> None:
    sizes = ("data.stills=0", "data.pans=0", "data.clips=3", "augment.crop=0", "augment.max_step=1")

    def top(*changes: str) -> Tensor:
        """(C, T) mean green of the top row, which is the same in every frame and its mirror image."""
        return batches(root, *sizes, *changes)[0, 0].clips[:, 1, :, 0].mean(dim=2)

    plain, changed = top(*PLAIN), top("augment.brightness=0.5", "augment.contrast=0.5")
    assert plain.std() < 0.02
    assert changed.std(dim=1).max() < 0.02
    assert changed.mean(dim=1).std() > 0.1


# --- picture and target stay together ---------------------------------------------------------------


def spot(picture: Tensor) -> tuple[float, float] | None:
    """Column and row of the bright spot of a normalised picture; None where the border may cut it."""
    weight = (picture[0] - picture[2] - 0.5).clamp(min=0).numpy()  # yellow or orange: red beyond blue
    border = np.concatenate((weight[0], weight[-1], weight[:, 0], weight[:, -1]))
    if border.any() or not weight.any():
        return None
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()


@pytest.mark.parametrize("kind", ["stills", "pans", "clips"])
def test_viewers_look_at_the_spot_in_every_window(root: Path, kind: str) -> None:
    sizes = [f"data.{name}={8 if name == kind else 0}" for name in ("stills", "pans", "clips")]
    data = batches(root, *PLAIN, *sizes, "augment.crop=1", "augment.min_side=0.6")
    distances = []
    for index in range(3):
        batch = data[0, index]
        for picture, target in zip((*batch.stills, *batch.clips[:, :, -1]), batch.targets, strict=True):
            place = spot(picture)
            if place is not None:
                row, column = divmod(int(target.argmax()), WIDTH)
                distances.append(np.hypot(place[0] - column, place[1] - row))
    assert len(distances) >= 8, "too few spots lie inside their windows for this test to mean anything"
    # A pixel of the tiny pictures becomes 2 to 4 pixels; fixations lie on whole pixels.
    assert max(distances) < 5


def test_where_nobody_looks_into_the_window_the_whole_picture_is_shown(root: Path) -> None:
    data = batches(root, *PLAIN, "data.clips=0", "augment.crop=1", "augment.min_side=0.05")
    for index in range(3):
        batch = data[0, index]
        assert (batch.targets.flatten(1).sum(1) > 0).all()


def test_videos_that_nobody_looks_at_are_refused_with_advice(root: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"lower data\.min_fixations, or set data\.clips=0"):
        batches(root, min_fixations=99)
    batches(root, "data.clips=0", min_fixations=99)


def test_the_sampler_walks_through_the_epoch_that_it_is_told() -> None:
    sampler = EpochSampler(3)
    assert len(sampler) == 3
    assert list(sampler) == [(0, 0), (0, 1), (0, 2)]
    sampler.set_epoch(7)
    assert list(sampler) == [(7, 0), (7, 1), (7, 2)]


# --- validation samples -----------------------------------------------------------------------------


def test_validation_takes_held_out_images_and_frames_with_a_whole_past(root: Path) -> None:
    footage = load_footage(gaze.videos(root, "validation"), 5)
    samples = ValidationSamples(gaze.stills(root, "validation"), footage, SMALL_SPEC, every_seconds=2 / 25)
    groups = [samples[i].group for i in range(len(samples))]
    # Frames 15 and 17 of 18.
    assert groups == ["osie/images", "crowd/images", "scene/images", "hevc/Tennis", "hevc/Tennis"]
    for index, sample in enumerate(samples[i] for i in range(len(samples))):
        assert sample.clip.shape == (3, 1 if index < 3 else FRAMES, HEIGHT, WIDTH)
        assert sample.density.shape == sample.fixations.shape == ((36, 48) if index < 3 else (32, 48))
        assert sample.fixations.sum() == 6
        sigma = SIGMA_FRACTION * 48
        np.testing.assert_array_equal(sample.density, density_map(sample.fixations.numpy(), (sigma, sigma)))
    blobs = [spot(samples[i].clip[:, -1]) for i in (3, 4)]
    looks = [np.nonzero(samples[i].fixations.numpy())[1].mean() for i in (3, 4)]
    for blob, look, frame in zip(blobs, looks, (15, 17), strict=True):
        assert look == pytest.approx(48 * (frame + 0.5) / 18, abs=1)
        assert blob is None or blob[0] / 2 == pytest.approx(look, abs=1.5)


def test_frames_with_too_few_fixations_are_left_out(root: Path) -> None:
    assert len(ValidationSamples([], load_footage(gaze.videos(root, "validation"), 7), SMALL_SPEC, 0.04)) == 0
    assert len(ValidationSamples([], load_footage(gaze.videos(root, "validation"), 6), SMALL_SPEC, 0.04)) == 3
