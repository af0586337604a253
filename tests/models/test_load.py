"""`hd2s.load` and `load_encoder`: names, files and what does not fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hd2s
import networks
import published
from fakes import SMALL_SPEC, lively_model
from hd2s import models
from hd2s.errors import InputNotFoundError, InputShapeError, UnknownNameError, WeightsError
from hd2s.models import HD2S, DomainHD2S, HD2SLite
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS
from networks import DOMAINS, Kind


def saved(path: Path, kind: Kind) -> Path:
    model = networks.shared(kind)
    domains = DOMAINS if kind.domain else ()
    io.save(path, model, io.Header(network=kind.name, spec=model.spec, domains=domains), dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("lite") / "lite.safetensors", Kind("hd2s-lite"))


@pytest.fixture(scope="module")
def lite_domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("lite") / "domains.safetensors", Kind("hd2s-lite", "films"))


@pytest.fixture(scope="module", params=["s3d_kinetics400", "s3d_torchvision"])
def encoder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A published encoder; the file is named after its family."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{request.param}.pt"
        torch.save(published.checkpoint(request.param), path)
        yield path


# --- hd2s.load --------------------------------------------------------------------------------------


def test_the_weights_that_come_along_load_in_eval_mode() -> None:
    model = hd2s.load()
    assert isinstance(model, HD2SLite)
    assert not any(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.spec == WEIGHTS["hd2s-lite"].input


@torch.no_grad()
def test_loads_a_file_of_ones_own_whose_input_travels_along(lite: Path) -> None:
    loaded, model = hd2s.load("hd2s-lite", weights=str(lite)), networks.shared(Kind("hd2s-lite"))
    assert loaded.spec == SMALL_SPEC != WEIGHTS["hd2s-lite"].input
    assert not any(module.training for module in loaded.modules())
    clip = networks.clips(model, 1)
    assert torch.equal(loaded(clip).saliency, model(clip).saliency)


@torch.no_grad()
def test_loads_all_sources_or_one(lite_domains: Path) -> None:
    everyone = hd2s.load("hd2s-lite", weights=lite_domains)
    assert isinstance(everyone, DomainHD2S)
    assert everyone.domains == DOMAINS
    clip = networks.clips(everyone, 1)
    for domain in DOMAINS:
        plain = hd2s.load("hd2s-lite", weights=lite_domains, domain=domain)
        assert isinstance(plain, HD2S)
        assert torch.equal(plain(clip).saliency, everyone(clip, domain).saliency)


def test_an_unknown_domain_lists_the_known_ones(lite_domains: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown domain 'filns'. Did you mean 'films'\? Known: films, s"
    ):
        hd2s.load(weights=lite_domains, domain="filns")


def test_a_domain_of_weights_that_have_none_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no domain 'dhf1k'"):
        hd2s.load(domain="dhf1k")


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"Unknown model 'hd2s-light'. Did you mean 'hd2s-lite'\? Known: hd2s, hd2s-lite\.",
    ):
        hd2s.load("hd2s-light")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"none\.safetensors does not exist"):
        hd2s.load(weights=tmp_path / "none.safetensors")


def test_a_network_without_weights_says_how_to_get_some() -> None:
    with pytest.raises(WeightsError, match=r"No weights come with 'hd2s'.*--weights FILE.*hd2s weights list"):
        hd2s.load("hd2s")


def test_weights_of_another_network_are_refused(lite: Path) -> None:
    with pytest.raises(WeightsError, match=r"lite\.safetensors is for 'hd2s-lite', not for 'hd2s'"):
        hd2s.load("hd2s", weights=lite)


def test_a_damaged_file_of_the_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = WEIGHTS["hd2s-lite"]
    damaged = bytearray(record.path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(damaged)
    monkeypatch.setitem(models.WEIGHTS, "hd2s-lite", replace(record, path=copy))
    with pytest.raises(WeightsError, match=f"is damaged: its SHA-256 is [0-9a-f]+, expected {record.sha256}"):
        hd2s.load()


# --- headers that fit no network --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": "tiny"},
            r"is for 'tiny', which this version of hd2s does not know\. Known: hd2s, hd2s-l",
        ),
        ({"spec": replace(SMALL_SPEC, height=100)}, "does not fit 'hd2s-lite': .*multiples of 32"),
        ({"spec": replace(SMALL_SPEC, num_frames=8)}, "does not fit.*tensors of another shape: collapses.0"),
        ({"domains": ("a.b",)}, "does not fit 'hd2s-lite': .*different names of letters"),
        ({"domains": ("a", "a")}, "does not fit 'hd2s-lite': .*different names of letters"),
        (
            {"domains": ("a",)},
            r"it lacks networks\.a\.\S+( \S+){4} and \d+ more and has unexpected centre",
        ),
        ({"domains": tuple(f"d{i}" for i in range(10_000))}, "claims to tell 10000 sources apart"),
    ],
)
def test_are_refused_with_the_file_and_the_reason(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "odd.safetensors"
    header = replace(io.Header(network="hd2s-lite", spec=SMALL_SPEC), **changes)
    io.save(path, networks.shared(Kind("hd2s-lite")), header)
    with pytest.raises(WeightsError, match=rf"odd\.safetensors .*{message}"):
        models.restore(io.read(path))


# --- networks to be trained -------------------------------------------------------------------------


def test_build_makes_what_the_arguments_say() -> None:
    plain, specific = models.build("hd2s-lite", SMALL_SPEC), models.build("hd2s-lite", domains=["a", "b"])
    assert isinstance(plain, HD2SLite)
    assert plain.spec == SMALL_SPEC
    assert plain.training
    assert isinstance(specific, DomainHD2S)
    assert specific.domains == ("a", "b")
    assert specific.spec == HD2SLite().spec
    with pytest.raises(UnknownNameError, match=r"Unknown model 'hd3s'\. Did you mean 'hd2s'"):
        models.build("hd3s")
    with pytest.raises(InputShapeError):
        models.build("hd2s-lite", replace(SMALL_SPEC, width=48))


@pytest.mark.parametrize("domains", [(), DOMAINS], ids=["plain", "domains"])
def test_an_encoder_starts_a_training(encoder: Path, domains: tuple[str, ...]) -> None:
    model = models.build("hd2s", networks.TINY, domains)
    before = {name: value.clone() for name, value in model.named_parameters() if "encoder." not in name}
    models.load_encoder(model, encoder)
    stem, *_ = published.checkpoint(encoder.stem).values()
    assert torch.equal(model.encoder.levels[0][0][0][0].weight, stem)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters() if name in before)


def test_an_encoder_is_no_network(encoder: Path) -> None:
    message = f"{encoder.stem}.pt is {encoder.stem}: an encoder for 'hd2s' to start a training from"
    with pytest.raises(WeightsError, match=message):
        hd2s.load("hd2s", weights=encoder)


def test_a_network_is_no_encoder(lite: Path) -> None:
    model = lively_model()
    with pytest.raises(WeightsError, match=r"lite\.safetensors is no encoder.*a whole network, 'hd2s-lite'"):
        models.load_encoder(model, lite)


def test_an_encoder_of_another_network_is_refused(encoder: Path) -> None:
    message = (
        rf"does not fit\. It looks like {encoder.stem}, but it lacks network\.stem.* unexpected levels\.0"
    )
    with pytest.raises(WeightsError, match=message):
        models.load_encoder(lively_model(), encoder)
