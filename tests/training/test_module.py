"""The supervised step: the same maps as the network gives, gradients everywhere, honest scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fakes import SMALL_SPEC, lively_model
from hd2s.errors import TrainingError
from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import cc, nss
from hd2s.models import HD2SOutput
from hd2s.training.data import Batch, ValidationSample
from hd2s.training.module import Supervised
from hd2s.training.recipe import OptimTable

HEIGHT, WIDTH, FRAMES = SMALL_SPEC.height, SMALL_SPEC.width, SMALL_SPEC.num_frames
OPTIM = OptimTable(epochs=2, lr=1e-2, encoder_lr=1e-3, weight_decay=0.0, warmup=0.25, clip_norm=5.0, ema=0.9)


def random_batch(stills: int, clips: int) -> Batch:
    return Batch(
        torch.randn(stills, 3, HEIGHT, WIDTH),
        torch.randn(clips, 3, FRAMES, HEIGHT, WIDTH),
        torch.rand(stills + clips, HEIGHT, WIDTH),
    )


@pytest.fixture
def module() -> Supervised:
    return Supervised(lively_model(), OPTIM)


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
def test_a_step_reaches_every_parameter_and_spares_the_statistics_of_the_encoder(
    module: Supervised, stills: int, clips: int
) -> None:
    module.train()
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    batch = random_batch(stills, clips)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
    torch.stack(list(hierarchical_kl(module._predict(batch), batch.targets).values())).sum().backward()
    lost = [n for n, p in module.model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert lost == []
    if clips:  # what nothing moves in teaches nothing about motion
        assert [name for name, p in module.model.named_parameters() if not p.grad.any()] == []
    optimizer.step()
    after = module.model.state_dict()
    changed = {name for name in before if not after[name].equal(before[name])}
    frozen = {name for name, _ in module.model.encoder.named_buffers(prefix="encoder")}
    assert any(name.endswith("running_mean") for name in frozen)
    assert not changed & frozen
    assert {"encoder.network.stem.norm.weight", "encoder.network.stem.norm.bias"} <= changed
    assert {"decoders.0.stages.0.0.1.running_mean", "fusion.weight"} <= changed


def test_a_loss_that_is_no_number_ends_the_training_with_advice(module: Supervised) -> None:
    batch = random_batch(1, 0)
    batch.stills[0, 0, 0, 0] = torch.nan
    with pytest.raises(
        TrainingError, match=r"The loss is nan at epoch 0, batch 3: start again with a lower optim\.lr"
    ):
        module.training_step(batch, 3)


def test_learning_rates_rise_and_then_fall_along_a_cosine(module: Supervised) -> None:
    module._trainer = SimpleNamespace(estimated_stepping_batches=20)  # type: ignore[assignment]
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    encoder, rest = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert encoder == {id(p) for p in module.model.encoder.parameters()}
    assert rest == {id(p) for p in module.model.parameters()} - encoder
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    for index, peak in enumerate((OPTIM.encoder_lr, OPTIM.lr)):
        series = [rate[index] / peak for rate in rates]
        assert series[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert series[5:] == sorted(series[5:], reverse=True)
        assert (series[5], series[-1]) == pytest.approx((1.0, 0.0109), abs=1e-3)


class Echo(nn.Module):
    """Predicts the first channel of the newest frame."""

    def forward(self, clip: Tensor) -> HD2SOutput:
        return HD2SOutput(clip[:, 0, -1], clip[:, :1, -1])


def test_scores_are_means_over_frames_then_clips_then_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Supervised(Echo(), OPTIM)  # type: ignore[arg-type]
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
