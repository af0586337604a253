"""The package as a whole: its public door, its metadata, its exception tree, and how lightly it starts."""

from __future__ import annotations

import builtins
import importlib.metadata
import importlib.resources
import inspect
import re
import subprocess
import sys

import pytest

import hd2s
from hd2s import errors

HEAVY_MODULES = ["av", "cv2", "lightning", "openvino", "torch"]
ERROR_CLASSES = [
    value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__
]
BUILTIN_ERRORS = {
    value for value in vars(builtins).values() if inspect.isclass(value) and issubclass(value, Exception)
} - {Exception}


def heavy_modules_after(code: str) -> list[str]:
    """Names of the slow libraries that a fresh interpreter has loaded once it has run `code`."""
    report = f"import sys; print('loaded:', *[name for name in {HEAVY_MODULES} if name in sys.modules])"
    script = f"try:\n    {code}\nexcept SystemExit as exit:\n    assert not exit.code, exit.code\n{report}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()[1:]


def test_version_is_that_of_the_installed_package() -> None:
    assert hd2s.__version__ == importlib.metadata.version("hd2s")


def test_command_is_installed() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="hd2s")
    assert script.value == "hd2s.cli.main:main"
    assert callable(script.load())


def test_public_names_are_sorted_and_listed() -> None:
    assert hd2s.__all__ == sorted(hd2s.__all__)
    assert set(hd2s.__all__) <= set(dir(hd2s))


@pytest.mark.parametrize("name", hd2s.__all__)
def test_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(hd2s, name)
    if not isinstance(value, str):
        assert inspect.getdoc(value), f"hd2s.{name} has no docstring"


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="sailency"):
        _ = hd2s.sailency


def test_package_is_marked_as_typed() -> None:
    assert importlib.resources.files("hd2s").joinpath("py.typed").is_file()


def test_the_check_for_heavy_modules_can_fail() -> None:
    assert heavy_modules_after("import cv2") == ["cv2"]


@pytest.mark.parametrize(
    "code",
    [
        "import hd2s",
        "import hd2s.errors, hd2s.types, hd2s.inference.windows",
        "import sys; sys.argv = ['hd2s', '--help']; from hd2s.cli.main import main; main()",
        "import sys; sys.argv = ['hd2s', 'predict', '--help']; from hd2s.cli.main import main; main()",
    ],
    ids=["import", "light modules", "--help", "predict --help"],
)
def test_light_parts_load_no_slow_library(code: str) -> None:
    assert heavy_modules_after(code) == []


@pytest.mark.parametrize("error", [error for error in ERROR_CLASSES if error is not errors.HD2SError])
def test_error_is_ours_and_a_builtin_one(error: type[Exception]) -> None:
    assert issubclass(error, errors.HD2SError)
    assert BUILTIN_ERRORS & set(error.__mro__), f"{error.__name__} is no builtin exception"
    assert inspect.getdoc(error)


def test_error_tree_is_drawn_completely() -> None:
    drawn = re.findall(r"[├└]── (\w+) +\((\w+)\)", inspect.getdoc(errors) or "")
    defined = [(e.__name__, e.__bases__[1].__name__) for e in ERROR_CLASSES if e is not errors.HD2SError]
    assert drawn == defined


def test_unknown_name_error_lists_what_exists_and_the_closest() -> None:
    error = errors.UnknownNameError.among("colormap", "virids", {"viridis", "jet"})
    assert str(error) == "Unknown colormap 'virids'. Did you mean 'viridis'? Known: jet, viridis."


def test_unknown_name_error_suggests_nothing_far_off() -> None:
    assert "Did you mean" not in str(errors.UnknownNameError.among("device", "toaster", ["cpu", "cuda"]))
