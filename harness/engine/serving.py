"""Serving, the worker's side: streams whose state is carried, and a session under a load of requests or streams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from statistics import median
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import Architecture, HarnessError, Inputs, LayerSize, Outputs, Session
from harness.engine.arrivals import Load, Served, serve
from harness.engine.calls import Subject, Witness, own_outputs
from harness.engine.timing import FreshInputs, no_garbage_collection, sample
from harness.parity import copied

if TYPE_CHECKING:
    from harness.contract import FloatArray

    State = tuple[FloatArray, ...]

SPIN_SECONDS = 0.5e-3  # a sleep ends some 0.1 ms late, so the last of a wait is spent looking at the clock
KEPT_CALLS = 2  # of a probe, whose outputs are held against the oracle
INPUT_BYTES = 64 * 2**20  # of arrays that are made before a probe; where it has more requests they are changed
UNLOADED_CALLS, UNLOADED_SECONDS = 35, 0.25
CALLS_OF_A_SIZE = 3  # before the first probe, of every batch that may come


class Stream:
    """One stream: fresh inputs of one shape, each with the state that the call before gave.

    The first state is zeros, as arrays, so that all calls are alike.

    Args:
        fresh: gives inputs without a state.
        state: the first state.
    """

    def __init__(self, fresh: Callable[[], Inputs], state: State) -> None:
        self._fresh, self._state = fresh, state

    def make(self) -> Inputs:
        """The next chunk."""
        return Inputs(self._fresh().x, self._state)

    def carry(self, outputs: Any) -> None:
        """Keep the state for the next chunk.

        Raises:
            HarnessError: these are no outputs.
        """
        self._state = state_of(outputs)


def state_of(outputs: Any) -> State:
    """The state after a call.

    Raises:
        HarnessError: these are no outputs.
    """
    if not isinstance(outputs, Outputs):
        raise HarnessError(f"fetch gave a {type(outputs).__name__}; it must give harness.Outputs")
    return outputs.state


def zero_state(architecture: Architecture, size: LayerSize, dtype: str) -> State:
    """A state of zeros for a batch of one: for each of the architecture's state arrays (L*D, 1, H)."""
    shape = (size.num_layers * architecture.directions, 1, size.hidden_size)
    return tuple(np.zeros(shape, dtype) for _ in architecture.state_names)


def stream_subject(
    key: str, session: Session, architecture: Architecture, steps: int, size: LayerSize, dtype: str, seed: int
) -> Subject:
    """A forward pass of the next chunk (1, steps, I) of one stream, whose state goes from call to call."""
    fresh = FreshInputs(key, (1, steps, size.input_size), dtype, seed)
    stream = Stream(fresh, zero_state(architecture, size, dtype))
    prepare, run, fetch = session.prepare, session.run, session.fetch
    return Subject(key, stream.make, prepare, run, fetch, True, rows=1, steps=steps, carry=stream.carry)


class Calls:
    """What serves the requests of one probe: from arrays in to arrays out, several side by side if they came so.

    Attributes:
        witness: what was kept of some calls.

    Args:
        session: open.
        inputs: of the requests in their order. If there are more requests the arrays come again with one number
            changed, so that no request is like another and nothing can be remembered of it.
        kept: the places of requests whose calls are kept.
        states: the first state of every stream, if requests are chunks: request i is of stream i % streams.
    """

    def __init__(
        self, session: Session, inputs: Sequence[Inputs], kept: Collection[int], states: Sequence[State] = ()
    ) -> None:
        self.witness = Witness()
        self._session, self._inputs, self._kept = session, inputs, frozenset(kept)
        self._states = list(states)

    def __call__(self, places: range) -> None:
        """Serve the requests at these places.

        Raises:
            whatever the session raises.
        """
        inputs = self._gather(places)
        before = None if self._kept.isdisjoint(places) else copied(inputs)
        session = self._session
        outputs = session.fetch(session.run(session.prepare(inputs)))
        if before is not None:
            self.witness.kept.append((before, copied(inputs), own_outputs(outputs)))
            self.witness.kept_calls += 1
        if self._states:
            self._states[places[0] % len(self._states)] = state_of(outputs)

    def _gather(self, places: range) -> Inputs:
        own = [self._input(place) for place in places]
        if self._states:
            return Inputs(own[0].x, self._states[places[0] % len(self._states)])
        return own[0] if len(own) == 1 else Inputs(np.concatenate([inputs.x for inputs in own]))

    def _input(self, place: int) -> Inputs:
        inputs = self._inputs[place % len(self._inputs)]
        if place >= len(self._inputs):
            inputs.x[0, 0, 0] = 1 / place
        return inputs


def unloaded(subject: Subject, most_batch: int, seed: int, clock: Callable[[], int]) -> float:
    """How long a call takes end to end while nothing waits, in seconds: the median after warming up.

    Of the larger batches each is called a few times, so that what is made at a first call is made.

    Args:
        subject: of a batch of one.
        most_batch: the largest batch that may come.
        seed: of the order in which nothing but this is timed.
        clock: nanoseconds, monotonic.
    """
    samples, _, _ = sample([subject], UNLOADED_CALLS, UNLOADED_SECONDS, seed, ("end-to-end",), clock)
    for batch in range(2, most_batch + 1):
        for _ in range(CALLS_OF_A_SIZE):
            inputs = Inputs(np.concatenate([subject.make().x for _ in range(batch)]))
            subject.fetch(subject.run(subject.prepare(inputs)))
    return median(sample.elapsed_s for sample in samples if sample.call > 0)


def under_load(
    session: Session,
    architecture: Architecture,
    steps: int,
    size: LayerSize,
    dtype: str,
    load: Load,
    clock: Callable[[], int],
) -> tuple[list[Served], list[float], Witness]:
    """Let requests arrive and serve them; no garbage is collected meanwhile. Gives what `arrivals.serve` does.

    Args:
        session: open, warm.
        architecture, size, dtype: its own.
        steps: T of a request or chunk.
        load: what is offered.
        clock: nanoseconds, monotonic.
    """
    schedule = load.schedule()
    rng = np.random.default_rng([load.seed, len(schedule)])
    fresh = FreshInputs(load.scenario, (1, steps, size.input_size), dtype, load.seed)
    count = max(load.most_batch, min(len(schedule), INPUT_BYTES // max(1, fresh().x.nbytes)))
    kept = rng.integers(len(schedule), size=KEPT_CALLS).tolist()
    states = [zero_state(architecture, size, dtype)] * load.streams
    calls = Calls(session, [fresh() for _ in range(count)], kept, states)

    def now() -> float:
        return clock() / 1e9

    def wait(seconds: float) -> None:
        end = now() + seconds
        if seconds > SPIN_SECONDS:
            sleep(seconds - SPIN_SECONDS)
        while now() < end:
            pass

    with no_garbage_collection():
        served, delays = serve(schedule, calls, now, wait, load.window_s, load.most_batch)
    return served, delays, calls.witness
