"""Timing of rows of real lengths: the same rows in every call, batched as a person who ships would batch them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import HarnessError, Inputs, LayerSize, Session, Split
from harness.engine.calls import Subject
from harness.engine.timing import FreshInputs

if TYPE_CHECKING:
    from harness.contract import IntArray

BATCHES = 4  # of one call


def real_lengths(task: str, split: Split, batch: int) -> IntArray:
    """The lengths of the rows of a call: as many as four batches hold, drawn from a split once for all.

    Rows are drawn without repeats as far as there are enough.

    Raises:
        HarnessError: the split has no lengths.
    """
    if split.lengths is None:
        raise HarnessError(f"task '{task}' says that its rows are ragged, and gives no lengths; a Split must have them")
    rows, order = BATCHES * batch, np.random.default_rng(0)
    passes = -(-rows // len(split.lengths))
    drawn = np.concatenate([order.permutation(len(split.lengths)) for _ in range(passes)])[:rows]
    lengths: IntArray = split.lengths[drawn].astype(np.int64)
    return lengths


def batched(lengths: IntArray, batch: int, scenario: str) -> Iterator[IntArray]:
    """The rows' lengths batch by batch: in the given order, or for `bucketed` in that of their lengths."""
    ordered = np.sort(lengths) if scenario == "bucketed" else lengths
    for start in range(0, len(ordered), batch):
        yield ordered[start : start + batch]


def lengths_subject(
    key: str,
    session: Session,
    lengths: IntArray,
    batch: int,
    scenario: str,
    size: LayerSize,
    dtype: str,
    seed: int,
) -> Subject:
    """Forward passes over all rows, a batch at a time, each as long as its longest row; a call is all of them.

    Args:
        key: its name.
        session: what is timed.
        lengths: (R,) of the rows.
        batch: rows of a batch; the last may have fewer.
        scenario: `padded` and `bucketed` give rectangles without lengths, so padding is computed; `packed` gives the
            lengths too.
        size, dtype: of the layer.
        seed: of the inputs, standard normal, padding too.
    """
    parts = list(batched(lengths, batch, scenario))
    makers = [
        FreshInputs(f"{key}.{number}", (len(own), int(own.max()), size.input_size), dtype, seed)
        for number, own in enumerate(parts)
    ]

    def make() -> tuple[Inputs, ...]:
        fresh = [maker() for maker in makers]
        if scenario != "packed":
            return tuple(fresh)
        return tuple(Inputs(inputs.x, lengths=own) for inputs, own in zip(fresh, parts, strict=True))

    def prepare(batches: tuple[Inputs, ...]) -> list[Any]:
        return [session.prepare(inputs) for inputs in batches]

    def run(prepared: list[Any]) -> list[Any]:
        return [session.run(one) for one in prepared]

    def fetch(raw: list[Any]) -> tuple[Any, ...]:
        return tuple([session.fetch(one) for one in raw])

    rows, steps = len(lengths), int(lengths.sum())
    return Subject(key, make, prepare, run, fetch, is_session=True, rows=rows, steps=steps)
