"""Everything hd2s raises on purpose.

```
HD2SError
├── InputNotFoundError     (FileNotFoundError)  no such video, folder, image or pattern
├── VideoDecodeError       (ValueError)         the input exists but holds no usable pictures
├── OutputError            (OSError)            the output cannot be written
├── UnknownNameError       (ValueError)         no such model, colormap, output, device, ...
├── DeviceUnavailableError (RuntimeError)       the device is known but not on this machine
├── InputShapeError        (ValueError)         a tensor or frame has the wrong shape or type
├── WeightsError           (RuntimeError)       a weight file is missing, damaged or does not fit
├── DatasetNotFoundError   (FileNotFoundError)  no data set at this path
├── DatasetFormatError     (ValueError)         a data set is there but not as expected
├── RecipeError            (ValueError)         a training recipe is wrong
├── TrainingError          (RuntimeError)       training cannot go on
└── MissingExtraError      (ImportError)        an optional dependency is not installed
```

Each message says what was given, what is allowed and what to do next. Each class is also the
builtin exception that a caller would expect.

Example:
    >>> import hd2s
    >>> try:
    ...     hd2s.load("hd2s-light")
    ... except ValueError as error:
    ...     print(type(error).__name__, error)
    UnknownNameError Unknown model 'hd2s-light'. Did you mean 'hd2s-lite'? Known: hd2s, hd2s-lite.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HD2SError(Exception):
    """Base of all errors that hd2s raises on purpose."""


class InputNotFoundError(HD2SError, FileNotFoundError):
    """An input path, pattern or device does not exist."""


class VideoDecodeError(HD2SError, ValueError):
    """An input exists but no (more) pictures can be decoded from it."""


class OutputError(HD2SError, OSError):
    """An output cannot be written."""


class UnknownNameError(HD2SError, ValueError):
    """A name is not among the known ones; the message lists those."""

    @classmethod
    def among(cls, kind: str, given: str, known: Iterable[str]) -> UnknownNameError:
        """Build the message for a `given` name of some `kind` that is not among the `known` ones."""
        names = sorted(known)
        close = get_close_matches(given, names, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return cls(f"Unknown {kind} '{given}'.{hint} Known: {', '.join(names)}.")


class DeviceUnavailableError(HD2SError, RuntimeError):
    """A device or engine is known but cannot be used on this machine."""


class InputShapeError(HD2SError, ValueError):
    """A tensor or frame has the wrong shape or type."""


class WeightsError(HD2SError, RuntimeError):
    """A weight file is missing, damaged or does not fit the network."""


class DatasetNotFoundError(HD2SError, FileNotFoundError):
    """No data set lies at the path."""


class DatasetFormatError(HD2SError, ValueError):
    """A data set is there but not as expected."""


class RecipeError(HD2SError, ValueError):
    """A training recipe is wrong."""


class TrainingError(HD2SError, RuntimeError):
    """Training cannot go on."""


class MissingExtraError(HD2SError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    @classmethod
    def needed(cls, why: str, extra: str) -> MissingExtraError:
        """Build the message from what is needed for what, and the extra."""
        return cls(f"{why}: run pip install '.[{extra}]' in a clone of hd2s.")
