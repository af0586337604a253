"""The catalogue's records agree with the files and the networks that they describe."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re

import pytest
import torch
from safetensors import safe_open

from hd2s.data.datasets import LAYOUTS
from hd2s.errors import UnknownNameError
from hd2s.models import BUILDERS
from hd2s.types import InputSpec
from hd2s.weights.catalog import WEIGHTS, WeightRecord, find

MAX_BYTES = 12 * 2**20
NETWORKS = {"hd2s", "hd2s-lite"}

OWN = [record for record in WEIGHTS.values() if record.path is not None]
LINKED = [record for record in WEIGHTS.values() if record.url is not None]
PUBLISHED = [record for record in WEIGHTS.values() if record.path is None and record.url is None]


def each(records: list[WeightRecord]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("record", records, ids=lambda record: record.name)


# --- all records ------------------------------------------------------------------------------------


def test_there_are_weights_of_each_kind() -> None:
    assert [record.name for record in OWN] == ["hd2s-lite"]
    assert [record.name for record in LINKED] == ["s3d-kinetics400"]
    assert [record.name for record in PUBLISHED] == ["hd2s", "hd2s-da", "hd2s-dsl"]


def test_every_network_has_weights_under_its_own_name() -> None:
    assert set(BUILDERS) <= set(WEIGHTS)
    assert [record.name for record in WEIGHTS.values()] == list(WEIGHTS)
    assert {record.network for record in WEIGHTS.values()} == NETWORKS


@each(list(WEIGHTS.values()))
def test_licence_source_and_training_data_are_told(record: WeightRecord) -> None:
    assert record.license
    assert record.commercial_use == ("NC" not in record.license)
    assert re.search(r"\b(19|20)\d\d\b", record.paper)
    assert record.trained_on
    for data in record.trained_on:
        assert data.name
        assert data.license
        assert re.search(r"\b(19|20)\d\d\b", data.citation), data


def test_weights_and_data_sets_state_the_same_licence() -> None:
    layouts = {layout.title: layout.license for layout in LAYOUTS.values()}
    trained_on = {data.name: data.license for record in WEIGHTS.values() for data in record.trained_on}
    for title in ("Hollywood-2", "UCF Sports"):
        assert trained_on[title] == layouts[title]


@each(list(WEIGHTS.values()))
def test_a_record_has_one_source_at_most(record: WeightRecord) -> None:
    assert not (record.path and record.url)
    assert re.fullmatch("[0-9a-f]*", record.sha256)


def test_a_name_is_found() -> None:
    assert find("hd2s-dsl") is WEIGHTS["hd2s-dsl"]
    with pytest.raises(
        UnknownNameError, match=r"Unknown weights 's3d'. .*Known: hd2s, hd2s-da, hd2s-dsl, hd2s-l"
    ):
        find("s3d")


# --- files that come along --------------------------------------------------------------------------


@each(OWN)
def test_file_is_the_recorded_one(record: WeightRecord) -> None:
    assert record.path is not None
    data = record.path.read_bytes()
    assert len(data) == record.size_bytes <= MAX_BYTES
    assert record.size_is_exact
    assert hashlib.sha256(data).hexdigest() == record.sha256
    with safe_open(record.path, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118


@each(OWN)
def test_input_and_size_are_those_of_the_file_and_of_the_network(record: WeightRecord) -> None:
    assert record.path is not None
    with safe_open(record.path, framework="pt") as file:
        header = json.loads(file.metadata()["hd2s"])
    assert header["model"] == record.network
    assert header["input"] == json.loads(
        json.dumps(dataclasses.asdict(record.input))
    )  # with lists for tuples
    network = BUILDERS[record.network]()
    assert network.spec == record.input
    assert sum(parameter.numel() for parameter in network.parameters()) == record.num_parameters


@each(OWN)
def test_every_field_of_our_own_is_filled(record: WeightRecord) -> None:
    empty = {
        field.name for field in dataclasses.fields(record) if getattr(record, field.name) in ("", (), None)
    }
    assert empty == {"url", "advice", "domains"}  # what only others need
    assert datetime.date.fromisoformat(record.date)
    assert record.recipe.startswith("hd2s train recipes/")
    assert record.license == "Apache-2.0"


@each(OWN)
def test_scores_of_held_out_data_are_there_and_plausible(record: WeightRecord) -> None:
    assert record.scores
    for data, scores in record.scores.items():
        assert {name.lower() for name in scores} >= {"cc", "nss"}, data
        assert 0.5 < {name.lower(): value for name, value in scores.items()}["cc"] < 1


# --- files of others --------------------------------------------------------------------------------


@each(LINKED)
def test_what_can_be_downloaded_can_be_checked(record: WeightRecord) -> None:
    assert record.url is not None
    assert record.url.startswith("https://")
    assert len(record.sha256) >= 8
    assert record.size_bytes
    if len(record.sha256) == 8:  # torch hub's convention
        assert record.url.endswith((f"-{record.sha256}.pth", f"-{record.sha256}.pt"))


def test_torchvisions_s3d_keeps_its_own_input() -> None:
    record = WEIGHTS["s3d-kinetics400"]
    assert record.license == "BSD-3-Clause"
    assert record.input == InputSpec(
        height=128,
        width=192,
        num_frames=16,
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
    )
    assert "predicts nothing by itself" in record.advice
    assert record.num_parameters is not None
    assert record.size_bytes == pytest.approx(4 * record.num_parameters, rel=0.02)


@each(PUBLISHED)
def test_published_weights_say_how_to_use_a_copy(record: WeightRecord) -> None:
    assert (record.license, record.commercial_use, record.network) == ("CC BY-NC 4.0", False, "hd2s")
    assert record.input == InputSpec(
        height=128, width=192, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    assert "hd2s predict VIDEO --model hd2s --weights FILE" in record.advice
    assert "hd2s weights convert IN.pt OUT.safetensors" in record.advice
    assert "2010.01220" in record.paper


def test_only_domain_specific_weights_have_domains() -> None:
    domains = {record.name: record.domains for record in WEIGHTS.values() if record.domains}
    assert domains == {"hd2s-dsl": ("dhf1k", "hollywood", "ucfsports")}
