"""`hd2s.load`: names, files and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hd2s
from fakes import SMALL_SPEC, lively_model
from hd2s import models
from hd2s.errors import InputNotFoundError, InputShapeError, UnknownNameError, WeightsError
from hd2s.models import HD2SLite
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS


def test_the_weights_that_come_along_load_in_eval_mode() -> None:
    model = hd2s.load()
    assert isinstance(model, HD2SLite)
    assert not any(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.spec == WEIGHTS["hd2s-lite"].input


def test_loads_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    written = lively_model(HD2SLite().spec)
    io.save(path, written, name="hd2s-lite", spec=written.spec, dtype=torch.float32)
    loaded = hd2s.load("hd2s-lite", weights=str(path))
    for name, value in written.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded.state_dict()[name], value), name


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown model 'hd2s-light'. Did you mean 'hd2s-lite'\? Known:"
    ):
        hd2s.load("hd2s-light")


def test_unknown_domain_says_that_there_are_none() -> None:
    with pytest.raises(UnknownNameError, match="no domain 'dhf1k'"):
        hd2s.load(domain="dhf1k")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"none\.safetensors does not exist"):
        hd2s.load(weights=tmp_path / "none.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "other.safetensors", lively_model()
    io.save(path, model, name="hd2s", spec=model.spec)
    with pytest.raises(WeightsError, match="is for 'hd2s', not for 'hd2s-lite'"):
        hd2s.load(weights=path)


def test_the_input_travels_with_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    io.save(path, lively_model(), name="hd2s-lite", spec=SMALL_SPEC)
    assert hd2s.load(weights=path).spec == SMALL_SPEC


def test_an_input_that_does_not_fit_the_strides_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    io.save(path, lively_model(), name="hd2s-lite", spec=replace(SMALL_SPEC, height=100))
    with pytest.raises(InputShapeError, match="multiples of 32"):
        hd2s.load(weights=path)


def test_a_damaged_file_of_the_package_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = WEIGHTS["hd2s-lite"]
    damaged = bytearray(record.path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(damaged)
    monkeypatch.setitem(models.WEIGHTS, "hd2s-lite", replace(record, path=copy))
    with pytest.raises(WeightsError, match=f"is damaged: its SHA-256 is [0-9a-f]+, expected {record.sha256}"):
        hd2s.load()
