"""Timing: one clock around the same work for every variant, in interleaved random order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from harness.contract import Inputs, LayerSize, Session, Split, Trainer

Clock = Callable[[], int]
BOUNDARIES = ("compute", "end-to-end")
TURN_CALLS = 5  # calls of one subject before the next one's turn, besides the first, which finds the other's caches
WARMUP_CALLS = (5, 100)  # at least, at most
FEWEST_CALLS = 12
DISTINCT_INPUTS = 8


@dataclass(frozen=True)
class Subject:
    """Something to time: what happens before, in and after the clock, and the inputs it cycles through.

    `compute` times `run` alone; `end-to-end` times `prepare`, `run` and `fetch` together.
    """

    key: str
    prepare: Callable[[Any], Any]
    run: Callable[[Any], Any]
    fetch: Callable[[Any], Any]
    inputs: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed call.

    Attributes:
        key: the subject's.
        boundary: `compute` or `end-to-end`.
        block: which round of turns; within a block every subject and boundary has one turn, in random order.
        turn: the place in the block's order.
        call: which of the turn's calls; call 0 follows another subject's turn and is left out of estimates.
        start_s: since sampling began, in seconds.
        elapsed_s: how long it took, in seconds.
    """

    key: str
    boundary: str
    block: int
    turn: int
    call: int
    start_s: float
    elapsed_s: float


def session_subject(
    key: str, session: Session, batch: int, time: int, size: LayerSize, dtype: str, seed: int
) -> Subject:
    """A forward pass from no state, over distinct standard normal inputs of one shape (B, T, I)."""
    rng = np.random.default_rng([seed, batch, time])
    inputs = [Inputs(rng.standard_normal((batch, time, size.input_size)).astype(dtype)) for _ in range(DISTINCT_INPUTS)]
    return Subject(key, session.prepare, session.run, session.fetch, inputs)


def trainer_subject(key: str, trainer: Trainer, batches: Sequence[Split]) -> Subject:
    """A training step: forward, backward and optimiser. Nothing is fetched."""
    return Subject(key, trainer.prepare, trainer.step, lambda loss: loss, list(batches))


def sample(
    subjects: Sequence[Subject], calls: int, seconds: float, seed: int, clock: Clock = perf_counter_ns
) -> list[Sample]:
    """Warm every subject up, then let all take turns in a new random order each block.

    A subject and boundary leaves when it has `calls` samples, or at least 12 and has measured for `seconds`.
    Garbage is collected before each block and never while a clock runs.

    Args:
        subjects: what to time; an empty sequence gives no samples.
        calls: the most samples of each subject and boundary.
        seconds: about how much measured time each gets.
        seed: of the order.
        clock: nanoseconds, monotonic.
    """
    rng = np.random.default_rng(seed)
    for subject in subjects:
        _warm_up(subject, seconds / 4, clock)
    gc.freeze()  # what is there by now stays; collecting between blocks need not look at it again
    try:
        return _take_turns(subjects, calls, seconds, rng, clock)
    finally:
        gc.unfreeze()


def _take_turns(
    subjects: Sequence[Subject], calls: int, seconds: float, rng: np.random.Generator, clock: Clock
) -> list[Sample]:
    open_turns = [(subject, boundary) for subject in subjects for boundary in BOUNDARIES]
    taken: dict[tuple[str, str], list[float]] = {(s.key, boundary): [] for s, boundary in open_turns}
    samples: list[Sample] = []
    origin = clock()
    block = 0
    while open_turns:
        with _no_garbage_collection():
            for turn, index in enumerate(rng.permutation(len(open_turns))):
                subject, boundary = open_turns[index]
                done = taken[subject.key, boundary]
                for call in range(1 + min(TURN_CALLS, calls - len(done))):
                    item = subject.inputs[len(samples) % len(subject.inputs)]
                    start, elapsed = (_compute if boundary == "compute" else _end_to_end)(subject, item, clock)
                    if call > 0:
                        done.append(elapsed)
                    samples.append(
                        Sample(subject.key, boundary, block, turn, call, (start - origin) / 1e9, elapsed / 1e9)
                    )
        open_turns = [
            (subject, boundary)
            for subject, boundary in open_turns
            if not _finished(taken[subject.key, boundary], calls, seconds)
        ]
        block += 1
    return samples


def _compute(subject: Subject, item: Any, clock: Clock) -> tuple[int, int]:
    prepared = subject.prepare(item)
    run = subject.run
    start = clock()
    raw = run(prepared)
    elapsed = clock() - start
    subject.fetch(raw)
    return start, elapsed


def _end_to_end(subject: Subject, item: Any, clock: Clock) -> tuple[int, int]:
    prepare, run, fetch = subject.prepare, subject.run, subject.fetch
    start = clock()
    fetch(run(prepare(item)))
    return start, clock() - start


def _warm_up(subject: Subject, seconds: float, clock: Clock) -> None:
    fewest, most = WARMUP_CALLS
    start = clock()
    for call in range(most):
        if call >= fewest and clock() - start >= seconds * 1e9:
            break
        subject.fetch(subject.run(subject.prepare(subject.inputs[call % len(subject.inputs)])))


def _finished(elapsed_ns: list[float], calls: int, seconds: float) -> bool:
    return len(elapsed_ns) >= calls or (len(elapsed_ns) >= FEWEST_CALLS and sum(elapsed_ns) >= seconds * 1e9)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
