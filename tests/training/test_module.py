"""The supervised step: the same maps as the network gives, gradients everywhere, honest scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fakes import SMALL_SPEC, lively_model
from hd2s.data.transforms import FULL
from hd2s.errors import TrainingError
from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import cc, nss
from hd2s.models import HD2SOutput
from hd2s.training.data import Batch, ValidationSample
from hd2s.training.module import Supervised
from hd2s.training.recipe import MixRecipe, load_recipe

HEIGHT, WIDTH, FRAMES = SMALL_SPEC.height, SMALL_SPEC.width, SMALL_SPEC.num_frames
LITE = Path(__file__).parents[2] / "recipes" / "lite.toml"
RECIPE = load_recipe(
    LITE,
    [
        "data.batches=10",
        "images.epochs=1",
        "images.lr=0.03",
        "images.encoder_lr=0.02",
        "optim.epochs=2",
        "optim.lr=0.01",
        "optim.encoder_lr=0.001",
        "optim.warmup=0.25",
    ],
)
assert isinstance(RECIPE, MixRecipe)


def random_batch(stills: int, clips: int) -> Batch:
    return Batch(
        torch.randn(stills, 3, HEIGHT, WIDTH),
        torch.randn(clips, 3, FRAMES, HEIGHT, WIDTH),
        torch.rand(stills + clips, HEIGHT, WIDTH),
        torch.tensor(FULL.spans()).expand(stills + clips, 2, 2),
    )


@pytest.fixture
def module() -> Supervised:
    return Supervised(lively_model(), RECIPE)


@pytest.mark.parametrize(("stills", "clips"), [(2, 2), (2, 0), (0, 2)])
@torch.no_grad()
def test_a_mixed_batch_gives_the_maps_of_its_stills_and_clips(
    module: Supervised, stills: int, clips: int
) -> None:
    module.eval()
    batch = random_batch(stills, clips)
    alone = [module.model(still[None, :, None]) for still in batch.stills]
    alone += [module.model(clip[None]) for clip in batch.clips]
    for found, *expected in zip(module._predict(batch), *alone, strict=True):
        assert found.std() > 0.02
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("stills", "clips"), [(2, 1), (2, 0), (0, 2)])
def test_a_step_reaches_what_is_to_learn_and_spares_the_start_and_the_statistics_of_the_encoder(
    module: Supervised, stills: int, clips: int
) -> None:
    module.train()
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    batch = random_batch(stills, clips)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    torch.stack(list(hierarchical_kl(module._predict(batch), batch.targets).values())).sum().backward()
    network = module.model.encoder.network
    start = {id(p) for part in (network.stem, *network.blocks[:3]) for p in part.parameters()}
    learning = {name: p for name, p in module.model.named_parameters() if id(p) not in start}
    lost = [name for name, p in learning.items() if p.grad is None or not p.grad.isfinite().all()]
    assert lost == []
    if clips:  # what nothing moves in teaches nothing about motion
        assert [name for name, p in learning.items() if not p.grad.any()] == []
    optimizer.step()
    after = module.model.state_dict()
    changed = {name for name in before if not after[name].equal(before[name])}
    frozen = {name for name, _ in module.model.encoder.named_buffers(prefix="encoder")}
    assert any(name.endswith("running_mean") for name in frozen)
    assert not changed & frozen
    assert not any(name.startswith(("encoder.network.stem", "encoder.network.blocks.2.")) for name in changed)
    assert {"encoder.network.blocks.3.expand.norm.weight", "centre.slopes"} <= changed
    assert {"decoders.0.stages.0.0.1.running_mean", "fusion.weight"} <= changed


def test_a_loss_that_is_no_number_ends_the_training_with_advice(module: Supervised) -> None:
    batch = random_batch(1, 0)
    batch.stills[0, 0, 0, 0] = torch.nan
    with pytest.raises(
        TrainingError, match=r"The loss is nan at epoch 0, batch 3: start again with a lower optim\.lr"
    ):
        module.training_step(batch, 3)


def test_in_each_phase_learning_rates_rise_and_then_fall_along_a_cosine(module: Supervised) -> None:
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    encoder, rest = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert encoder == {id(p) for p in module.model.encoder.parameters()}
    assert rest == {id(p) for p in module.model.parameters()} - encoder
    rates = []
    for _ in range(30):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for index, peaks in enumerate(((0.02, 0.001), (0.03, 0.01))):
        images, both = ([rate[index] for rate in part] for part in (rates[:10], rates[10:]))
        assert images[:2] == pytest.approx([peaks[0] / 2, peaks[0]])
        assert images[1:] == sorted(images[1:], reverse=True)
        series = [rate / peaks[1] for rate in both]
        assert series[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert series[5:] == sorted(series[5:], reverse=True)
        assert (series[5], series[-1]) == pytest.approx((1.0, 0.0109), abs=1e-3)


def test_once_videos_come_the_batch_norms_keep_their_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    for images, epoch, frozen in ((1, 0, False), (1, 1, True), (0, 0, False)):
        recipe = load_recipe(LITE, [f"images.epochs={images}"])
        assert isinstance(recipe, MixRecipe)
        module = Supervised(lively_model(), recipe)
        monkeypatch.setattr(Supervised, "current_epoch", epoch)
        module.on_train_epoch_start()
        before = {name: value.clone() for name, value in module.model.named_buffers()}
        module._predict(random_batch(2, 1))
        kept = all(value.equal(before[name]) for name, value in module.model.named_buffers())
        assert kept == frozen


def test_where_the_encoder_does_not_learn_no_gradient_is_made() -> None:
    recipe = load_recipe(LITE, ["images.epochs=0", "optim.encoder_lr=0"])
    assert isinstance(recipe, MixRecipe)
    module = Supervised(lively_model(), recipe)
    torch.stack(
        list(hierarchical_kl(module._predict(random_batch(1, 1)), torch.rand(2, HEIGHT, WIDTH)).values())
    ).sum().backward()
    assert all(p.grad is None for p in module.model.encoder.parameters())
    assert all(p.grad is not None for p in module.model.decoders.parameters())


class Echo(nn.Module):
    """Predicts the first channel of the newest frame."""

    def forward(self, clip: Tensor) -> HD2SOutput:
        return HD2SOutput(clip[:, 0, -1], clip[:, :1, -1])


def test_scores_are_means_over_frames_then_clips_then_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Supervised(lively_model(), RECIPE)
    module.model = Echo()  # type: ignore[assignment]
    logged: dict[str, Any] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    groups = ["hevc/a", "hevc/a", "hevc/a", "hevc/b", "osie/images"]
    scores: dict[str, list[tuple[float, float]]] = {}
    for index, group in enumerate(groups):
        clip = torch.rand(3, 1, 6, 8)
        density, fixations = torch.rand(12, 16), torch.randint(0, 2, (12, 16))
        module.validation_step(ValidationSample(clip, density, fixations, group), index)
        large = nn.functional.interpolate(clip[None, 0], size=(12, 16), mode="bilinear")[:, 0]
        pair = cc(large, density[None]).item(), nss(large, fixations[None]).item()
        scores.setdefault(group, []).append(pair)
    module.on_validation_epoch_end()

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    for index, metric in enumerate(("cc", "nss")):
        by_clip = {group: mean([pair[index] for pair in pairs]) for group, pairs in scores.items()}
        assert logged[f"val/hevc_{metric}"] == pytest.approx(mean([by_clip["hevc/a"], by_clip["hevc/b"]]))
        assert logged[f"val/osie_{metric}"] == pytest.approx(by_clip["osie/images"])
    assert logged["val/cc"] == pytest.approx(mean([logged["val/hevc_cc"], logged["val/osie_cc"]]))
    logged.clear()
    module.on_validation_epoch_end()
    assert logged == {}, "scores of one epoch must not count for the next"
