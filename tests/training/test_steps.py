"""The three ways to train: what each moves, and that its mechanism works."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import networks
from fakes import SMALL_SPEC, lively_model
from hd2s import models
from hd2s.errors import TrainingError
from hd2s.models import HD2S
from hd2s.models.decoder import Decoder, Stage, separable_conv
from hd2s.training import steps
from hd2s.training.clip_recipe import ClipRecipe
from hd2s.training.clips import ClipBatch
from hd2s.training.steps import AdversarialStep, DomainSpecificStep, Step, SupervisedStep, features
from hd2s.types import InputSpec

TINY = InputSpec(height=32, width=32, num_frames=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def recipe(method: str, **optim: object) -> ClipRecipe:
    table = {
        "model": "hd2s-lite",
        "method": method,
        "seed": 1,
        "source": [{"name": name, "root": "nowhere"} for name in networks.DOMAINS],
        "data": {"batch": 4},
        "optim": {"kind": "adam", "lr": 0.01, "steps": 1, **optim},
        "check": {"every": 1, "validate_every": 1},
    }
    if method == "adversarial":
        table |= {"target": [{"name": "other", "root": "nowhere"}], "supervise_levels": False}
    return ClipRecipe.model_validate(table)


def batch(spec: InputSpec, domain: str, seed: int = 0, size: int = 4) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 3, spec.num_frames, spec.height, spec.width)
    clips = torch.randn(shape, generator=generator)
    targets = torch.rand(size, spec.height, spec.width, generator=generator)
    return ClipBatch(clips, targets, domain, [f"{domain}/{i}, frames 0 to 7" for i in range(size)], [])


def fit(step: Step, batches: list[object]) -> None:
    """Train one step of the optimiser a batch."""
    trainer = Trainer(
        max_steps=len(batches),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        limit_val_batches=0,
    )
    trainer.fit(step, DataLoader(batches, batch_size=None), [])  # type: ignore[arg-type]


class Encoder(nn.Module):
    """Four levels of a few channels, from the mean over time: a network that trains in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv3d(3, 6, (1, s, s), (1, s, s)), nn.Tanh()) for s in (8, 16, 32, 32)
        )

    def forward(self, clip: Tensor) -> list[Tensor]:
        return [level(clip) for level in self.levels]


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


def tiny_network() -> HD2S:
    torch.manual_seed(0)
    scales = (8, 16, 32, 32)
    return HD2S(
        encoder=Encoder(),
        collapses=[Mean() for _ in scales],
        decoders=[Decoder(6, (Stage(4, scale=s),), separable_conv) for s in scales],
        spec=TINY,
        clip_lengths=(8,),
    )


# --- what moves -------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_a_supervised_step_moves_everything() -> None:
    model = tiny_network()
    before = snapshot(model)
    fit(SupervisedStep(model, recipe("supervised"), 1), [batch(TINY, "films")])
    still = [name for name, value in snapshot(model).items() if torch.equal(value, before[name])]
    assert still == []


def test_without_supervised_levels_only_the_output_counts() -> None:
    table = recipe("supervised").model_dump(by_alias=True) | {"supervise_levels": False}
    losses = {}
    for levels in (True, False):
        changed = ClipRecipe.model_validate(table | {"supervise_levels": levels})
        step = SupervisedStep(tiny_network(), changed, 1)
        seen: list[float] = []
        step.finish = lambda loss, *batches, seen=seen: seen.append(loss.item()) or loss  # type: ignore[method-assign, assignment]
        fit(step, [batch(TINY, "films")])
        losses[levels] = seen[0]
    assert losses[False] < losses[True] / 2


def test_a_domain_specific_step_moves_what_is_shared_and_its_own_fusion_included() -> None:
    model = models.build("hd2s-lite", SMALL_SPEC, networks.DOMAINS)
    assert isinstance(model, models.DomainHD2S)
    before = snapshot(model)
    other = networks.own(model, "sports")
    kept = {name: value.detach().clone() for name, value in other.items()}
    fit(DomainSpecificStep(model, recipe("domain_specific"), 1), [batch(model.spec, "films", size=2)])
    assert [name for name, value in other.items() if not torch.equal(value, kept[name])] == []
    moved = {name for name, value in snapshot(model).items() if not torch.equal(value, before[name])}
    for part in ("fusion.weight", "fusion.bias", "smoothing.sigma", "priors.0.gaussians"):
        assert f"networks.films.{part}" in moved
    assert any("encoder" in name for name in moved)


def test_gradients_are_summed_or_averaged_as_the_recipe_says() -> None:
    scaled = {}
    for kind in ("sum", "mean"):
        step = SupervisedStep(tiny_network(), recipe("supervised", accumulate=5, gradients=kind), 1)
        step.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
        scaled[kind] = step.finish(torch.tensor(2.0), batch(TINY, "films")).item()
    assert scaled == {"sum": 10.0, "mean": 2.0}


def test_features_of_lite_equal_those_of_the_whole_network() -> None:
    model = lively_model().double()
    clips = networks.clips(model, 2).double()
    with torch.no_grad():
        for found, expected in zip(features(model, clips), model.collapse(model.encoder(clips)), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


# --- domain adaptation ------------------------------------------------------------------------------


def tinted(domain: str, tint: float, seed: int) -> ClipBatch:
    """Clips that differ in colour among themselves, and in red from those of the other domain."""
    plain = batch(TINY, domain, seed, size=16)
    generator = torch.Generator().manual_seed(seed + 10**6)
    colours = torch.randn(16, 3, 1, 1, 1, generator=generator) * torch.tensor([0.25, 0.5, 0.5]).view(
        1, 3, 1, 1, 1
    )
    colours[:, 0] += tint
    return plain._replace(clips=0.3 * plain.clips + colours)


def final_accuracy(count: int) -> float:
    """Train on two domains that can be told apart; return the heads' accuracy in the last quarter."""
    torch.manual_seed(0)
    step = AdversarialStep(tiny_network(), recipe("adversarial", steps=count), 2)
    seen: list[float] = []

    def spy(values: dict[str, Tensor], *_: object, **__: object) -> None:
        if "domain/level2" in values:
            seen.append(sum(values[f"domain/level{level}"].item() for level in (2, 3, 4, 5)) / 4)

    step._log = spy  # type: ignore[method-assign]
    fit(step, [(tinted("films", -0.7, 2 * i), tinted("other", 0.7, 2 * i + 1)) for i in range(count)])
    return sum(seen[-count // 4 :]) / (count // 4)


def test_heads_tell_separable_domains_apart_without_reversal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "reversal_strength", lambda progress: 0.0)
    assert final_accuracy(64) > 0.9


def test_the_schedule_of_the_reversal_drives_accuracy_towards_chance() -> None:
    assert final_accuracy(200) < 0.8


# --- what goes wrong --------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_names_step_videos_and_frames() -> None:
    bad = batch(TINY, "films")
    bad.clips[0] = torch.nan
    with pytest.raises(
        TrainingError, match=r"The loss is nan at step 0, in the batch of films/0, frames 0 to 7"
    ):
        fit(SupervisedStep(tiny_network(), recipe("supervised"), 1), [bad])


def test_few_bad_videos_are_tolerated_and_many_are_not() -> None:
    def skipping(names: Iterator[int], count: int) -> list[object]:
        return [
            batch(TINY, "films")._replace(skipped=[f"video {next(names)}: damaged"]) for _ in range(count)
        ]

    fit(SupervisedStep(tiny_network(), recipe("supervised"), 300), skipping(itertools.count(), 3))
    with pytest.raises(TrainingError, match=r"4 of 300 videos could not be used, more than 1%.*\n  video 0"):
        fit(SupervisedStep(tiny_network(), recipe("supervised"), 300), skipping(itertools.count(), 4))
