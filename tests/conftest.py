"""What every test gets: its own cache, the same random numbers, one thread, a skip where CUDA is missing."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest
import torch

SEED = 20210117

# The tests' tensors are tiny: a second thread costs more than it saves, and may change the order of sums.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Keep OpenVINO's graphs in a folder of this session: built once, and the user's stay untouched."""
    folder = tempfile.TemporaryDirectory(prefix="hd2s-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["HD2S_CACHE"] = folder.name


@pytest.fixture(autouse=True)
def _reproducible_random_numbers() -> Iterator[None]:
    """Seed each test alike and put the generators back, so that no test depends on those before it.

    hd2s never draws from numpy's global generator, but libraries still do.
    """
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    torch.manual_seed(SEED)
    yield
    random.setstate(python_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(torch_state)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs CUDA where there is none, and what needs sums in a fixed order where there is."""
    if item.get_closest_marker("needs_cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("needs_exact_runs") and torch.cuda.is_available():
        pytest.skip("a GPU adds gradients in no fixed order, so two runs differ in the last bits")
