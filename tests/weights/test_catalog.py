"""The catalogue's records agree with the files and the networks that they describe."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib

import pytest
import torch
from safetensors import safe_open

from hd2s.models import BUILDERS
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS, WeightRecord

MAX_BYTES = 12 * 2**20

records = pytest.mark.parametrize("record", WEIGHTS.values(), ids=WEIGHTS.keys())


def test_every_network_has_weights_under_its_own_name() -> None:
    assert set(WEIGHTS) == set(BUILDERS)
    assert [record.name for record in WEIGHTS.values()] == list(WEIGHTS)


@records
def test_file_is_the_recorded_one(record: WeightRecord) -> None:
    data = record.path.read_bytes()
    assert len(data) == record.size_bytes <= MAX_BYTES
    assert hashlib.sha256(data).hexdigest() == record.sha256
    with safe_open(record.path, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118


@records
def test_input_is_that_of_the_file_and_of_the_network(record: WeightRecord) -> None:
    assert io.read_header(record.path) == (record.name, record.input)
    assert BUILDERS[record.name]().spec == record.input


@records
def test_every_field_is_filled(record: WeightRecord) -> None:
    empty = [
        field.name for field in dataclasses.fields(record) if getattr(record, field.name) in ("", (), None)
    ]
    assert empty == []
    for data in record.trained_on:
        assert all(dataclasses.astuple(data)), data
        assert any(str(year) in data.citation for year in range(1990, 2030)), data
    assert datetime.date.fromisoformat(record.date)
    assert record.recipe.startswith("hd2s train recipes/")
    assert record.license == "Apache-2.0"


@records
def test_scores_of_held_out_data_are_there_and_plausible(record: WeightRecord) -> None:
    assert record.scores
    for data, scores in record.scores.items():
        assert {name.lower() for name in scores} >= {"cc", "nss"}, data
        assert 0.5 < {name.lower(): value for name, value in scores.items()}["cc"] < 1
