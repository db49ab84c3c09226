"""Serving: whose state goes where, what a call is given, and what is kept of it, with sessions that only take notes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from harness import GRU, LSTM, HarnessError, Inputs, LayerSize, Outputs, SessionOptions
from harness.engine.arrivals import Load, work
from harness.engine.audit import witnessed
from harness.engine.calls import Subject
from harness.engine.serving import (
    CALLS_OF_A_SIZE,
    KEPT_CALLS,
    Calls,
    Stream,
    stream_subject,
    under_load,
    unloaded,
    zero_state,
)
from harness.engine.timing import FreshInputs, sample
from harness.parity import exact_weights, probe_weights, same

SIZE = LayerSize(3, 4)


class Notes:
    """A session whose state counts its stream's calls; it notes what it was given, and takes a known time."""

    def __init__(self, call_ns: int = 1_000_000) -> None:
        self.given: list[Inputs] = []
        self.now, self._call_ns = 5_000, call_ns

    def clock(self) -> int:
        self.now += 100  # so that whoever spins gets somewhere
        return self.now

    def prepare(self, inputs: Inputs) -> Inputs:
        return inputs

    def run(self, prepared: Inputs) -> Outputs:
        self.given.append(Inputs(prepared.x.copy(), prepared.state))
        self.now += self._call_ns
        batch = len(prepared.x)
        state = prepared.state or (np.zeros((1, batch, 4), np.float32),) * 2
        return Outputs(np.zeros((*prepared.x.shape[:2], 4), np.float32), tuple(part + 1 for part in state))

    def fetch(self, raw: Outputs) -> Outputs:
        return raw

    def close(self) -> None:
        pass

    def counts(self) -> list[float]:
        """How many calls each call's state had seen."""
        return [float(inputs.state[0][0, 0, 0]) for inputs in self.given if inputs.state]


@pytest.fixture(autouse=True)
def _nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.engine.serving.sleep", lambda seconds: None)


def requests(count: int) -> list[Inputs]:
    return [Inputs(np.full((1, 2, 3), place, np.float32)) for place in range(count)]


# ------------------------------------------------------------------------------------------------- one stream


def test_a_stream_gives_each_call_the_state_of_the_call_before_and_fresh_inputs() -> None:
    notes = Notes()
    subject = stream_subject("s", notes, LSTM, 5, SIZE, "float32", seed=1)
    sample([subject], 20, 60.0, seed=1, clock=notes.clock)
    assert notes.counts()[:-6] == list(range(len(notes.given) - 6))  # the last get one input again and again
    assert len(set(notes.counts()[-6:])) == 1
    assert {inputs.x.shape for inputs in notes.given} == {(1, 5, 3)}
    assert len({inputs.x.tobytes() for inputs in notes.given[:-6]}) == len(notes.given) - 6


def test_the_first_state_is_zeros_of_the_architectures_own_shapes() -> None:
    size = LayerSize(3, 4, num_layers=2)
    for part in zero_state(LSTM, size, "float64"):
        assert (part.shape, str(part.dtype)) == ((2, 1, 4), "float64")
        assert not part.any()
    assert len(zero_state(LSTM, size, "float64")) == 2
    assert len(zero_state(GRU, size, "float32")) == 1


def test_a_stream_whose_session_gives_no_outputs_is_refused() -> None:
    stream = Stream(lambda: requests(1)[0], ())
    with pytest.raises(HarnessError, match=r"fetch gave a dict; it must give harness\.Outputs"):
        stream.carry({})


class Forgetful(Notes):
    """It gives a right answer for a state of zeros, whatever it was given."""

    def __init__(self, weights: Any, forgets: bool) -> None:
        super().__init__()
        self._weights, self._forgets = weights, forgets

    def run(self, prepared: Inputs) -> Outputs:
        self.now += 1_000
        inputs = Inputs(prepared.x) if self._forgets else prepared
        found = LSTM.reference(exact_weights(self._weights, "float32"), inputs, SIZE)
        return Outputs(found.y.astype(np.float32), tuple(part.astype(np.float32) for part in found.state))


@pytest.mark.parametrize("forgets", [False, True])
def test_kept_outputs_of_a_stream_are_held_against_the_oracle_with_the_state_they_had(forgets: bool) -> None:
    weights = probe_weights(LSTM, SIZE)
    session = Forgetful(weights, forgets)
    subject = stream_subject("s", session, LSTM, 2, SIZE, "float32", seed=1)
    _, _, witnesses = sample([subject], 20, 60.0, seed=1, clock=session.clock)
    observations, changed, moved = witnessed(witnesses["s"], LSTM, weights, SessionOptions(SIZE))
    assert changed == 0
    assert moved == 4 * (2 * 3 + 2 * 4 + 2 * 4 + 2 * 4)  # x, two states in, y, two states out
    assert all(seen.rmse < 1e-6 for seen in observations) == (not forgets)
    assert len(observations) >= 3


def test_a_call_that_writes_to_its_state_is_seen() -> None:
    class Writing(Notes):
        def run(self, prepared: Inputs) -> Outputs:
            found = super().run(prepared)
            assert prepared.state
            prepared.state[1][...] = 7
            return found

    session = Writing()
    subject = stream_subject("s", session, LSTM, 2, SIZE, "float32", seed=1)
    _, _, witnesses = sample([subject], 20, 60.0, seed=1, clock=session.clock)
    kept = [(before.state or (), after.state or ()) for before, after, _ in witnesses["s"].kept]
    assert kept
    assert all((before[1] != 7).any() and (after[1] == 7).all() for before, after in kept)


# ------------------------------------------------------------------------------------------------- many requests


def test_single_requests_are_given_as_they_are_and_several_side_by_side() -> None:
    notes = Notes()
    calls = Calls(notes, requests(5), kept=[])
    calls(range(1))
    calls(range(1, 4))
    assert [inputs.x[:, 0, 0].tolist() for inputs in notes.given] == [[0.0], [1.0, 2.0, 3.0]]
    assert [inputs.state for inputs in notes.given] == [None, None]


def test_arrays_that_come_again_are_other_inputs_and_what_was_kept_of_them_stays() -> None:
    notes = Notes()
    calls = Calls(notes, requests(2), kept=[1, 3])
    for place in range(6):
        calls(range(place, place + 1))
    found = [before.x[0, 0, 0] for before, _, _ in calls.witness.kept]
    assert found == [1.0, np.float32(1 / 3)]
    assert all(same(before, after) for before, after, _ in calls.witness.kept)
    assert len({before.x.tobytes() for before, _, _ in calls.witness.kept}) == 2


def test_every_stream_has_a_state_of_its_own() -> None:
    notes = Notes()
    calls = Calls(notes, requests(7), kept=[], states=[zero_state(LSTM, SIZE, "float32")] * 3)
    for place in range(7):
        calls(range(place, place + 1))
    assert notes.counts() == [0, 0, 0, 1, 1, 1, 2]


def test_of_the_calls_that_were_chosen_inputs_before_and_after_and_outputs_are_kept() -> None:
    class Changing(Notes):
        def run(self, prepared: Inputs) -> Outputs:
            found = super().run(prepared)
            prepared.x[...] = -1
            return found

    notes = Changing()
    calls = Calls(notes, requests(4), kept=[1, 3])
    for place in range(4):
        calls(range(place, place + 1))
    assert [(before.x[0, 0, 0], after.x[0, 0, 0]) for before, after, _ in calls.witness.kept] == [(1, -1), (3, -1)]
    assert all(isinstance(outputs, Outputs) for _, _, outputs in calls.witness.kept)


# ------------------------------------------------------------------------------------------------- under a load


def test_a_load_of_requests_is_served_from_its_schedule_and_two_calls_are_kept() -> None:
    notes = Notes()
    load = Load("server", 500.0, 40, 0.0, 0.0, 1, seed=5)
    served, delays, witness = under_load(notes, LSTM, 2, SIZE, "float32", load, notes.clock)
    assert [request.arrival_s for request in served] == load.schedule()
    assert [inputs.x.shape for inputs in notes.given] == [(1, 2, 3)] * 40
    assert len({inputs.x.tobytes() for inputs in notes.given}) == 40
    assert 1 <= len(witness.kept) <= KEPT_CALLS
    assert work(served)[1] == pytest.approx(40 * 1e-3, rel=0.01)
    assert all(0 <= delay < 1e-5 for delay in delays)  # the last of a wait is spent looking at the clock


def test_a_load_of_streams_gives_every_chunk_its_own_streams_state() -> None:
    notes = Notes(call_ns=1000)
    load = Load("stream", 4.0, 12, 1e-3, 0.0, 1, seed=5)
    under_load(notes, LSTM, 2, SIZE, "float32", load, notes.clock)
    assert notes.counts() == list(itertools.chain(*([chunk] * 4 for chunk in range(3))))


def test_unloaded_is_the_median_of_calls_from_arrays_in_to_arrays_out() -> None:
    notes = Notes()
    fresh = FreshInputs("u", (1, 2, 3), "float32", 1)
    subject = Subject("u", fresh, notes.prepare, notes.run, notes.fetch, is_session=True)
    seconds = unloaded(subject, 3, seed=1, clock=notes.clock)
    assert seconds == pytest.approx(1e-3, rel=1e-3)
    sizes = [len(inputs.x) for inputs in notes.given]
    assert sizes[-2 * CALLS_OF_A_SIZE :] == [2] * CALLS_OF_A_SIZE + [3] * CALLS_OF_A_SIZE
