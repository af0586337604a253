"""The published post-processing: pixel for pixel as published, and only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import hd2s
import networks
from fakes import lively_model, moving_blob
from hd2s.errors import UnknownNameError
from hd2s.inference.engines import open_engine
from hd2s.inference.postprocess import paper
from hd2s.models import HD2S
from hd2s.weights import io
from published import GOLDEN

FRAMES = list(moving_blob(18, 64, 96))


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.float32]]:
    with np.load(GOLDEN / "golden_seed1.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("family", "smoothed"), [("hd2s", False), ("hd2s_dsl/DHF1K", True)], ids=["plain", "domain-specific"]
)
def test_maps_are_the_published_png_files(
    golden: dict[str, NDArray[np.float32]], family: str, smoothed: bool
) -> None:
    maps = paper(golden[f"{family}/saliency"][None], smoothed=smoothed)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(np.rint(255 * maps[0]), golden[f"{family}/png"])


def test_each_map_is_scaled_by_its_own_peak_and_nothing_stays_nothing() -> None:
    maps = np.zeros((3, 40, 50), np.float32)
    maps[0, 20, 25], maps[1, 20, 25] = 1.0, 0.25
    done = paper(maps, smoothed=False)
    assert done.max(axis=(1, 2)).tolist() == [1.0, 1.0, 0.0]
    assert np.array_equal(paper(maps, smoothed=True)[0], maps[0])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_post_process_what_they_predict(engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = lively_model()
    plain = open_engine(model, engine=engine, device="cpu")
    posted = open_engine(model, engine=engine, device="cpu", post="paper")
    assert (posted.name, posted.device, posted.spec) == (plain.name, plain.device, plain.spec)
    images = np.stack(FRAMES)
    expected = plain.slide(plain.encode(images), conspicuity=True)
    found = posted.slide(posted.encode(images), conspicuity=True)
    np.testing.assert_array_equal(found.saliency, paper(expected.saliency, smoothed=False))
    np.testing.assert_array_equal(found.conspicuity, expected.conspicuity)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_maps_of_a_domain_are_truncated_smoothed_and_scaled(tmp_path: Path, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    model, path = networks.domain_specific("hd2s-lite"), tmp_path / "w.safetensors"
    header = io.Header(network="hd2s-lite", spec=model.spec, domains=model.domains)
    io.save(path, model, header, dtype=torch.float32)
    domain = model.domains[-1]

    found = list(hd2s.predict(FRAMES, weights=path, domain=domain, engine=engine, device="cpu", post="paper"))
    network = model.eval().for_domain(domain, truncate=True)
    assert isinstance(network, HD2S)
    clip = torch.from_numpy(np.stack(FRAMES[-16:])).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        expected = network(clip).saliency.numpy()
    np.testing.assert_allclose(found[-1].saliency, paper(expected, smoothed=True)[0], atol=1.01 / 255)


def test_an_unknown_post_processing_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown post-processing 'papper'. Did you mean 'paper'\?"):
        open_engine(lively_model(), post="papper")
