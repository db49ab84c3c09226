"""Rows of real lengths: the same rows however they are batched, and every batch of a timed call can be audited."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import LSTM, HarnessError, Inputs, LayerSize, Outputs, SessionOptions, Split
from harness.contract import RAGGED_SCENARIOS
from harness.engine.audit import witnessed
from harness.engine.lengths import BATCHES, batched, lengths_subject, real_lengths
from harness.engine.timing import sample
from harness.parity import equations, probe_weights

SIZE = LayerSize(3, 4)
WEIGHTS = probe_weights(LSTM, SIZE)
LENGTHS = np.array([5, 1, 3, 2, 7, 6, 4])


def split(lengths: Any) -> Split:
    rows = 0 if lengths is None else len(lengths)
    return Split(np.zeros((rows, 9, 3), np.float32), np.zeros(rows, np.int64), lengths)


class Ear:
    """A session that is right, and remembers what it was given."""

    def __init__(self) -> None:
        self.heard: list[Inputs] = []
        self._right = equations(LSTM, WEIGHTS, SIZE, "float32", "float32")

    def prepare(self, inputs: Inputs) -> Any:
        self.heard.append(inputs)
        return self._right.prepare(inputs)

    def run(self, prepared: Any) -> Any:
        return self._right.run(prepared)

    def fetch(self, raw: Any) -> Outputs:
        return self._right.fetch(raw)

    def close(self) -> None:
        pass


class Careless(Ear):
    """A session that is wrong about the last row of every batch of three."""

    def fetch(self, raw: Any) -> Outputs:
        outputs = super().fetch(raw)
        if len(outputs.y) == 3:
            outputs.y[-1] += 1
        return outputs


def heard(scenario: str) -> list[Inputs]:
    ear = Ear()
    subject = lengths_subject("s", ear, LENGTHS, 3, scenario, SIZE, "float32", seed=1)
    outputs = subject.fetch(subject.run(subject.prepare(subject.make())))
    assert len(outputs) == 3
    return ear.heard


def test_rows_are_drawn_from_the_split_without_repeats_as_far_as_there_are_enough() -> None:
    few = real_lengths("t", split(np.arange(1, 9)), 4)
    assert len(few) == BATCHES * 4
    assert sorted(few) == sorted([*range(1, 9)] * 2)
    many = real_lengths("t", split(np.arange(1, 100)), 4)
    assert len(set(many)) == BATCHES * 4
    np.testing.assert_array_equal(many, real_lengths("t", split(np.arange(1, 100)), 4))


def test_a_task_without_lengths_is_told_that_it_says_otherwise() -> None:
    with pytest.raises(HarnessError, match="task 't' says that its rows are ragged, and gives no lengths"):
        real_lengths("t", split(None), 4)


def test_padded_batches_are_rectangles_as_long_as_their_longest_row() -> None:
    batches = heard("padded")
    assert [inputs.x.shape for inputs in batches] == [(3, 5, 3), (3, 7, 3), (1, 4, 3)]
    assert all(inputs.lengths is None for inputs in batches)


def test_bucketed_batches_hold_rows_of_like_lengths() -> None:
    batches = heard("bucketed")
    assert [inputs.x.shape for inputs in batches] == [(3, 3, 3), (3, 6, 3), (1, 7, 3)]
    assert all(inputs.lengths is None for inputs in batches)


def test_packed_batches_say_how_long_each_row_is() -> None:
    batches = heard("packed")
    assert [inputs.x.shape for inputs in batches] == [(3, 5, 3), (3, 7, 3), (1, 4, 3)]
    assert [inputs.lengths.tolist() for inputs in batches if inputs.lengths is not None] == [[5, 1, 3], [2, 7, 6], [4]]


@pytest.mark.parametrize("scenario", RAGGED_SCENARIOS)
def test_every_way_to_batch_has_the_same_rows_and_real_steps(scenario: str) -> None:
    subject = lengths_subject("s", Ear(), LENGTHS, 3, scenario, SIZE, "float32", seed=1)
    assert (subject.rows, subject.steps) == (7, 28)
    parts = list(batched(LENGTHS, 3, scenario))
    assert sorted(np.concatenate(parts)) == sorted(LENGTHS)


def test_no_two_calls_get_the_same_numbers() -> None:
    subject = lengths_subject("s", Ear(), LENGTHS, 3, "padded", SIZE, "float32", seed=1)
    seen = {inputs.x.tobytes() for _ in range(20) for inputs in subject.make()}
    assert len(seen) == 60


@pytest.mark.parametrize("scenario", RAGGED_SCENARIOS)
@pytest.mark.parametrize(("session", "is_right"), [(Ear, True), (Careless, False)])
def test_every_batch_of_a_kept_call_is_held_against_the_oracle(
    scenario: str, session: type[Ear], is_right: bool
) -> None:
    subject = lengths_subject("s", session(), LENGTHS, 3, scenario, SIZE, "float32", seed=1)
    _, _, witnesses = sample([subject], 10, 60.0, seed=3, boundaries=["compute"])
    kept = witnesses["s"].kept
    assert len(kept) % 3 == 0
    assert len(kept) >= 3
    found, changed, moved = witnessed(witnesses["s"], LSTM, WEIGHTS, SessionOptions(SIZE))
    assert changed == 0
    small = sum(rows * longest * (3 + 4) * 4 for rows, longest in ((3, 3), (3, 5), (1, 4)))  # x and y in float32
    assert small < moved < 3 * small  # of all batches of one call
    assert (max(one.rmse for one in found) < 1e-6) == is_right
