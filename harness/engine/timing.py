"""Timing: one clock around the same work for every variant, in interleaved random order."""

from __future__ import annotations

import gc
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import median
from time import perf_counter_ns, time_ns
from typing import Any

import numpy as np

from harness.contract import Device, DeviceState, Inputs, LayerSize, Session, Split, Trainer
from harness.engine.calls import Clock, Subject, Witness, one_call, timed_call
from harness.engine.device import device_row
from harness.engine.noise import Disturbance, NoiseRecord, Reading, disturbed

BOUNDARIES = ("compute", "end-to-end")
TURN_CALLS = 5  # calls of one subject before the next one's turn, besides the first, which finds the other's caches
WARMUP_CALLS = (10, 100)  # at least, at most
TREND_CALLS = 10  # the last calls of a warm-up among which there may be no trend
TREND_Z = 1.96  # two-sided 5 % of the standard normal distribution
FEWEST_CALLS = 10
DISTINCT_INPUTS = 4096  # of one pool
DISTINCT_BATCHES = 8
KEPT_OUTPUTS = 2  # of each subject and boundary


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed call.

    Attributes:
        key: the subject's.
        boundary: `compute` or `end-to-end`.
        block: which round of turns; within a block every subject and boundary has one turn, in random order.
        turn: the place in the block's order.
        call: which of the turn's calls; call 0 follows another subject's turn and is left out of estimates.
        start_s: Unix time, in seconds.
        elapsed_s: how long it took, in seconds.
        disturbed: did the machine take a core away during its turn, or where caches are emptied since that and until
            the next time (see `noise.disturbed`); None where it cannot tell.
    """

    key: str
    boundary: str
    block: int
    turn: int
    call: int
    start_s: float
    elapsed_s: float
    disturbed: bool | None


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How one subject was warmed up.

    Attributes:
        key: the subject's.
        calls: how many calls it took, in any case at most 100.
        is_steady: the last ten calls showed no trend; False where the cap came first.
    """

    key: str
    calls: int
    is_steady: bool


class FreshInputs:
    """Standard normal inputs of one shape, none twice: windows of a pool of random numbers, in random order.

    When all windows of a pool have been given, another one is made.

    Args:
        key: whose inputs they are; no two subjects get the same, so that nothing can be remembered for another.
        shape: (B, T, I).
        dtype: of the inputs.
        seed: of the numbers and the order.
    """

    def __init__(self, key: str, shape: tuple[int, int, int], dtype: str, seed: int) -> None:
        self._rng = np.random.default_rng([seed, *shape[:2], zlib.crc32(key.encode())])
        self._shape, self._size, self._dtype = shape, math.prod(shape), dtype
        self._starts: list[int] = []

    def __call__(self) -> Inputs:
        """The next input."""
        if not self._starts:
            self._pool = self._rng.standard_normal(self._size + DISTINCT_INPUTS).astype(self._dtype)
            self._starts = self._rng.permutation(DISTINCT_INPUTS).tolist()
        start = self._starts.pop()
        return Inputs(self._pool[start : start + self._size].reshape(self._shape).copy())


def session_subject(
    key: str, session: Session, batch: int, time: int, size: LayerSize, dtype: str, seed: int
) -> Subject:
    """A forward pass from no state, over distinct standard normal inputs of one shape (B, T, I)."""
    make = FreshInputs(key, (batch, time, size.input_size), dtype, seed)
    return Subject(key, make, session.prepare, session.run, session.fetch, True, rows=batch, steps=batch * time)


def trainer_subject(key: str, trainer: Trainer, batches: Sequence[Split]) -> Subject:
    """A training step: forward, backward and optimiser. Nothing is fetched."""
    rows = len(batches[0].x)
    return Subject(key, cycle(batches).__next__, trainer.prepare, trainer.step, _nothing, rows=rows)


def empty_subject(key: str, device: Device | None = None) -> Subject:
    """A call that does nothing: what it reads is the harness's own overhead, and that of the device's clock."""
    return Subject(key, lambda: None, _nothing, _nothing, _nothing, device=device)


def canary_subject(key: str) -> Subject:
    """A fixed workload of the harness's own, some 0.1 ms of NumPy arithmetic: it changes with the machine."""
    start = np.linspace(-1.0, 1.0, 1024)  # 8 KiB: stays in the first cache, wherever it lies

    def run(values: Any) -> Any:
        for _ in range(50):
            np.multiply(values, 0.999, out=values)
            np.add(values, 0.001, out=values)
        return values

    return Subject(key, lambda: start, np.copy, run, _nothing)


def _nothing(value: Any) -> Any:
    return value


def sample(
    subjects: Sequence[Subject],
    calls: int,
    seconds: float,
    seed: int,
    boundaries: Sequence[str] = BOUNDARIES,
    clock: Clock = perf_counter_ns,
) -> tuple[list[Sample], list[WarmUp], dict[str, Witness]]:
    """Warm every subject up, then let all take turns in a new random order each block; what was seen beside by key.

    A subject and boundary leaves when it has `calls` samples, or at least 10 and has measured for `seconds`.
    Garbage is collected before each block and never while a clock runs.

    Args:
        subjects: what to time; an empty sequence gives no samples.
        calls: the most samples of each subject and boundary.
        seconds: about how much measured time each gets.
        seed: of the order.
        boundaries: which clocks, of `BOUNDARIES`.
        clock: nanoseconds, monotonic.
    """
    rng = np.random.default_rng(seed)
    warm_ups = [warm_up(subject, seconds, clock) for subject in subjects]
    gc.freeze()  # what is there by now stays; collecting between blocks need not look at it again
    witnesses = {subject.key: Witness() for subject in subjects}
    try:
        samples = _take_turns(subjects, calls, seconds, rng, boundaries, clock, witnesses)
        sessions = [subject for subject in subjects if subject.is_session]
        for index in rng.permutation(len(sessions)) if boundaries else ():
            witnesses[sessions[index].key].repeated_s = _repeat(sessions[index], clock)
    finally:
        gc.unfreeze()
    return samples, warm_ups, witnesses


def _take_turns(
    subjects: Sequence[Subject],
    calls: int,
    seconds: float,
    rng: np.random.Generator,
    boundaries: Sequence[str],
    clock: Clock,
    witnesses: Mapping[str, Witness],
) -> list[Sample]:
    open_turns = [(subject, boundary) for subject in subjects for boundary in boundaries]
    taken: dict[tuple[str, str], list[float]] = {(s.key, boundary): [] for s, boundary in open_turns}
    kept = {pair: _kept_calls(calls, rng) for pair in taken}  # a session cannot know which
    samples: list[Sample] = []
    unix_ns = time_ns() - clock()  # what to add to the clock
    block = 0
    with closing(Disturbance()) as disturbance:
        while open_turns:
            with no_garbage_collection():
                for turn, index in enumerate(rng.permutation(len(open_turns))):
                    subject, boundary = open_turns[index]
                    of = subject.key, boundary
                    wanted = 1 + min(TURN_CALLS, calls - len(taken[of]))
                    beside = TurnDisturbance(disturbance, clock)
                    watched = [call in kept[of] and subject.is_session for call in range(len(taken[of]), calls)]
                    own = beside.over(subject)
                    timed = _turn(own, boundary, [False, *watched][:wanted], witnesses[subject.key], clock)
                    marks = beside.marks(len(timed))
                    taken[of] += [elapsed for _, elapsed in timed[1:]]
                    samples += [
                        Sample(
                            subject.key,
                            boundary,
                            block,
                            turn,
                            call,
                            (unix_ns + start) / 1e9,
                            elapsed / 1e9,
                            mark,
                        )
                        for call, ((start, elapsed), mark) in enumerate(zip(timed, marks, strict=True))
                    ]
            open_turns = [pair for pair in open_turns if not _finished(taken[pair[0].key, pair[1]], calls, seconds)]
            block += 1
    return samples


class TurnDisturbance:
    """Looks whether a turn is disturbed: as a whole, or each of its calls where caches are emptied between them.

    Emptying takes a hundred times as long as a call, and what is disturbed then is not the call.
    """

    def __init__(self, disturbance: Disturbance, clock: Clock) -> None:
        self._disturbance, self._clock = disturbance, clock
        self._looks: list[tuple[int, Reading]] = []
        self._look()

    def over(self, subject: Subject) -> Subject:
        """The subject, watched."""
        if (evict := subject.evict) is None:
            return subject

        def watched() -> None:
            self._look()
            evict()
            self._look()

        return replace(subject, evict=watched)

    def marks(self, calls: int) -> list[bool | None]:
        """Of each of so many calls whether it was disturbed; at the end of the turn."""
        self._look()
        is_whole = len(self._looks) == 2
        spans = zip(self._looks[0 if is_whole else 2 :: 2], self._looks[1 if is_whole else 3 :: 2], strict=True)
        marks = [disturbed(before, after, (end - begin) / 1e9) for (begin, before), (end, after) in spans]
        return marks * calls if is_whole else marks

    def _look(self) -> None:
        self._looks.append((self._clock(), self._disturbance.read()))


def _kept_calls(calls: int, rng: np.random.Generator) -> set[int]:
    """Which counted calls' outputs are kept: half of them among those that are always made."""
    half = KEPT_OUTPUTS // 2
    return {*rng.integers(min(FEWEST_CALLS, calls), size=half), *rng.integers(calls, size=KEPT_OUTPUTS - half)}


def _turn(
    subject: Subject, boundary: str, watched: Sequence[bool], witness: Witness, clock: Clock
) -> list[tuple[int, int]]:
    """The start and the duration of consecutive calls, in nanoseconds of the clock; watched calls are kept."""
    timed: list[tuple[int, int]] = []
    for is_watched in watched:
        call = timed_call(subject, boundary, is_watched, witness, clock)
        if timed and boundary == "compute":
            witness.around_s.append(call.around_ns / 1e9)
            if subject.device is not None:
                witness.host_s.append(call.host_ns / 1e9)
        timed.append((call.start_ns, call.elapsed_ns))
    return timed


def _repeat(subject: Subject, clock: Clock) -> list[float]:
    """A turn like any other, fresh inputs made for nothing included, whose calls all get the same one."""
    item = subject.make()
    same = replace(subject, make=lambda: (subject.make(), item)[1])
    with no_garbage_collection():
        timed = _turn(same, "compute", [False] * (1 + TURN_CALLS), Witness(), clock)
    return [elapsed / 1e9 for _, elapsed in timed[1:]]


def repeat_ratios(subject: Subject, pairs: int, clock: Clock = perf_counter_ns) -> list[float]:
    """Of so many pairs of turns how long a repeated input takes, over fresh ones; none where the clock saw no time."""
    ratios = []
    for _ in range(pairs):
        with no_garbage_collection():
            fresh = _turn(subject, "compute", [False] * (1 + TURN_CALLS), Witness(), clock)[1:]
        fresh_s, repeated_s = median(elapsed for _, elapsed in fresh) / 1e9, median(_repeat(subject, clock))
        if fresh_s > 0 and repeated_s > 0:
            ratios.append(repeated_s / fresh_s)
    return ratios


def warm_up(subject: Subject, seconds: float, clock: Clock = perf_counter_ns) -> WarmUp:
    """Call a subject until its last ten calls show no trend, which is looked at after ten calls and every fifth.

    It ends unsteady after 100 calls, or when as much time is over as measuring may take.
    """
    fewest, most = WARMUP_CALLS
    elapsed: list[int] = []
    while len(elapsed) < fewest or (len(elapsed) < most and sum(elapsed) < seconds * 1e9):
        call = one_call(subject, "compute", subject.make(), clock)
        elapsed.append(call.elapsed_ns)
        subject.carry(call.outputs)
        if len(elapsed) >= TREND_CALLS and len(elapsed) % 5 == 0 and not has_trend(elapsed[-TREND_CALLS:]):
            return WarmUp(subject.key, len(elapsed), True)
    return WarmUp(subject.key, len(elapsed), False)


def has_trend(values: Sequence[float]) -> bool:
    """Do the values rise or fall with time, at the two-sided 5 % level? A single outlier is no trend.

    Source: Mann 1945, "Nonparametric tests against trend", with Kendall's normal approximation and continuity
    correction; ties count as no change.
    """
    n = len(values)
    later = np.subtract.outer(values, values)[np.tril_indices(n, -1)]
    score = abs(int(np.sign(later).sum()))
    return (score - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) > TREND_Z if n > 2 else False


def _finished(elapsed_ns: list[float], calls: int, seconds: float) -> bool:
    return len(elapsed_ns) >= calls or (len(elapsed_ns) >= FEWEST_CALLS and sum(elapsed_ns) >= seconds * 1e9)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage, and then none until the end."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Timing:
    """What one process timed besides the variants, and the noise around it."""

    def __init__(self) -> None:
        self._started_s = time_ns() / 1e9
        self._noise = NoiseRecord()
        self._noise.__enter__()
        self._elapsed: dict[tuple[str, str], list[float]] = {}
        self._blocks = 0
        self._calls = self._disturbed = 0
        self._states: list[DeviceState] = []
        self._why = ""

    def add(self, samples: list[Sample]) -> None:
        """Keep what canary and empty calls took, and count what was disturbed."""
        for sample in samples:
            self._calls += 1
            self._disturbed += bool(sample.disturbed)
            if sample.call > 0 and not sample.key.isdecimal():
                self._elapsed.setdefault((sample.key, sample.boundary), []).append(sample.elapsed_s)
        self._blocks += 1 + max((sample.block for sample in samples), default=-1)

    def add_device(self, state: DeviceState | None, why: str) -> None:
        """Keep what the device that has just been timed says of itself, or why the host's clock has timed it."""
        self._states += [] if state is None else [state]
        self._why = why

    def add_probe(self) -> None:
        """A load was offered: garbage was collected once before it, as before a block."""
        self._blocks += 1

    def finish(self) -> dict[str, Any]:
        """The columns of the processes table that the worker knows."""
        self._noise.__exit__(None, None, None)

        def middle(key: str, boundary: str) -> float | None:
            found = self._elapsed.get((key, boundary))
            return median(found) if found else None

        return {
            "started_s": self._started_s,
            "seconds": time_ns() / 1e9 - self._started_s,
            "canary_s": middle("canary", "compute"),
            "overhead_s": middle("empty", "compute"),
            "overhead_end_to_end_s": middle("empty", "end-to-end"),
            "disturbed_share": self._disturbed / self._calls if self._calls else None,
            **self._noise.row(own_collections=self._blocks),
            **device_row(self._states, self._why),
        }
