"""The `.ts` text format of the UEA & UCR time-series classification archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Channels = NDArray[np.float64]


@dataclass(frozen=True)
class Cases:
    """The cases of one `.ts` file.

    Attributes:
        header: the `@` lines before the data, name (in lower case) to the rest of the line.
        series: one array per case, (T_i, channels) float64; T_i may differ from case to case.
        classes: the class names, in the header's order.
        targets: (N,) int64, each an index into `classes`.
    """

    header: Mapping[str, str]
    series: list[NDArray[np.float64]]
    classes: tuple[str, ...]
    targets: NDArray[np.int64]


def parse(text: str, source: str) -> Cases:
    """Read the text of a `.ts` file whose cases carry class labels, no time stamps and no missing values.

    Comment lines start with `#`. Header lines start with `@`, the last of them is `@data`. Each later line is one case:
    channels separated by `:`, the values of a channel by `,`, the class label after the last `:`.

    Raises:
        DataError: a line does not fit; names `source` and the line's number.
    """
    header: dict[str, str] = {}
    series: list[NDArray[np.float64]] = []
    classes: tuple[str, ...] = ()
    targets: list[int] = []
    channels: int | None = None
    in_data = False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if not in_data:
                key, value = _header_line(line)
                if key == "data":
                    classes = _classes(header)
                    in_data = True
                else:
                    header[key] = value
                continue
            case, label = _case(line)
            channels = case.shape[1] if channels is None else channels
            if case.shape[1] != channels:
                raise ValueError(f"the case has {case.shape[1]} channels, the first has {channels}")
            if label not in classes:
                raise ValueError(f"class {label!r} is not among @classLabel ({' '.join(classes)})")
        except ValueError as error:
            raise DataError(f"{source}, line {number}: {error}") from None
        series.append(case)
        targets.append(classes.index(label))
    if not in_data:
        raise DataError(f"{source}: no @data line; is this a .ts file?")
    if not series:
        raise DataError(f"{source}: no case after @data")
    return Cases(header, series, classes, np.array(targets, np.int64))


def _header_line(line: str) -> tuple[str, str]:
    if not line.startswith("@"):
        raise ValueError("expected a header line that starts with '@', or @data")
    key, _, value = line[1:].partition(" ")
    return key.lower(), value.strip()


def _classes(header: Mapping[str, str]) -> tuple[str, ...]:
    if header.get("timestamps", "false").lower() != "false":
        raise ValueError("@timeStamps must be false; time stamps are not supported")
    labelled, *classes = header.get("classlabel", "").split() or [""]
    if labelled.lower() != "true" or not classes:
        raise ValueError("the header has no '@classLabel true NAME NAME ...'")
    return tuple(classes)


def _case(line: str) -> tuple[NDArray[np.float64], str]:
    *texts, label = line.split(":")
    if not texts:
        raise ValueError("expected channels and a class label, separated by ':'")
    channels = [[_value(value) for value in text.split(",")] for text in texts]
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1:
        raise ValueError(f"the channels have different lengths: {', '.join(map(str, sorted(lengths)))}")
    case: NDArray[Any] = np.array(channels, np.float64)
    return np.ascontiguousarray(case.T), label.strip()


def _value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text.strip()!r} is not a finite number")
    return value
