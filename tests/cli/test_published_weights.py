"""The paper's network from the command line: published checkpoints are shown, converted and used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import networks
import published
from command import contents, run
from fakes import make_video
from hd2s.weights import io


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up checkpoints as published: hd2s_da.pt, hd2s_dsl.pt, s3d_torchvision.pt."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for family in ("hd2s_da", "hd2s_dsl", "s3d_torchvision"):
        torch.save({"state_dict": published.checkpoint(family)}, folder / f"{family}.pt")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a small hd2s that tells "films" from "sports"."""
    model, path = networks.domain_specific("hd2s"), tmp_path_factory.mktemp("small") / "small.safetensors"
    header = io.Header(network="hd2s", spec=model.spec, domains=model.domains)
    io.save(path, model, header, dtype=torch.float32)
    return path


def shown(path: Path) -> dict[str, str]:
    outcome = run("weights", "info", path)
    assert outcome.status == 0, outcome.stderr
    return dict(line.split(": ", 1) for line in outcome.stdout.splitlines())


# --- info and convert -------------------------------------------------------------------------------


def test_info_says_what_a_checkpoint_is_and_what_it_may_be_used_for(checkpoints: Path) -> None:
    info = shown(checkpoints / "hd2s_dsl.pt")
    assert (info["network"], info["kind"]) == ("hd2s", "published checkpoint, hd2s_dsl")
    assert info["domains"] == "dhf1k, hollywood, ucfsports"
    assert info["licence"] == "CC BY-NC 4.0"
    assert info["input"] == "16 frames of 128 x 192 (height x width)"
    assert info["domain heads"] == "none"
    adapted = shown(checkpoints / "hd2s_da.pt")
    assert adapted["parameters"] == "29,795,597", "those of the network, as the paper counts them"
    assert adapted["domain heads"] == "for domain adaptation, in training only"
    encoder = shown(checkpoints / "s3d_torchvision.pt")
    assert encoder["network"] == "hd2s (the encoder alone)"
    assert encoder["licence"] == "BSD-3-Clause"
    assert "(0.43216, 0.394666, 0.37645)" in encoder["normalisation"]


def test_info_knows_the_weights_that_come_along() -> None:
    info = shown(Path(io.__file__).with_name("hd2s-lite.safetensors"))
    assert (info["name"], info["kind"], info["licence"]) == ("hd2s-lite", "written by hd2s", "Apache-2.0")
    assert "OSIE" in info["origin"]


def test_convert_writes_the_network_and_says_what_it_leaves_out(checkpoints: Path, tmp_path: Path) -> None:
    output = tmp_path / "da.safetensors"
    outcome = run("weights", "convert", checkpoints / "hd2s_da.pt", output)
    assert (outcome.status, outcome.stdout) == (0, f"{output}\n")
    assert "the domain heads are left out" in outcome.stderr
    before, after = io.read(checkpoints / "hd2s_da.pt"), io.read(output)
    assert after.header == before.header
    for name, value in after.state.items():
        assert torch.equal(value, before.state[name]), name
    assert contents(tmp_path) == ["da.safetensors"]


def test_convert_refuses_encoders_and_keeps_what_is_there(checkpoints: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    outcome = run("weights", "convert", checkpoints / "s3d_torchvision.pt", output)
    assert outcome.status == 1
    assert "an encoder for 'hd2s' to start a training from" in outcome.stderr
    assert not output.exists()
    output.write_text("mine")
    outcome = run("weights", "convert", checkpoints / "hd2s_dsl.pt", output)
    assert outcome.status == 1
    assert "exists already" in outcome.stderr
    assert output.read_text() == "mine"
    outcome = run("weights", "convert", checkpoints / "hd2s_dsl.pt", tmp_path / "none" / "out.safetensors")
    assert outcome.status == 1
    assert "cannot be written" in outcome.stderr


# --- predict ----------------------------------------------------------------------------------------


def test_predicts_as_one_domain_with_the_published_post_processing(small: Path, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=9)
    maps = {}
    for domain, post in (("films", "none"), ("sports", "none"), ("sports", "paper")):
        out = tmp_path / f"{domain}-{post}"
        outcome = run(
            *("predict", clip, "-o", out, "--save", "npz", "--engine", "torch", "--device", "cpu"),
            *("--model", "hd2s", "--weights", small, "--domain", domain, "--post", post),
        )
        assert outcome.status == 0, outcome.stderr
        with np.load(out / "clip_saliency.npz") as file:
            maps[domain, post] = file["saliency"].astype(np.float32)
    assert maps["films", "none"].shape == (9, 32, 48)
    assert not np.allclose(maps["films", "none"], maps["sports", "none"], atol=0.01)
    assert maps["sports", "none"].max() < 0.99
    assert maps["sports", "paper"].max(axis=(1, 2)) == pytest.approx(1, abs=0.05)  # enlarged: nearly the peak


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ((), 1, "No weights come with 'hd2s'"),
        (("--weights", "SMALL"), 2, "Choose whose viewers to imitate: --domain, one of films, sports"),
        (("--weights", "SMALL", "--domain", "film"), 2, "Did you mean 'films'? Known: films, sports."),
        (("--weights", "SMALL", "--domain", "films", "--post", "papper"), 2, "Did you mean 'paper'?"),
        (("--weights", "ENCODER"), 1, "an encoder for 'hd2s' to start a training from"),
    ],
)
def test_never_predicts_with_random_or_wrong_weights(
    checkpoints: Path, small: Path, tmp_path: Path, options: tuple[str, ...], status: int, message: str
) -> None:
    files = {"SMALL": small, "ENCODER": checkpoints / "s3d_torchvision.pt"}
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    outcome = run(
        *("predict", clip, "-o", tmp_path / "out", "--model", "hd2s", "--engine", "torch"),
        *(files.get(option, option) for option in options),
    )
    assert (outcome.status, outcome.stdout) == (status, "")
    assert message in outcome.stderr
    assert contents(tmp_path / "out") == []
