"""One call of what is timed: the window around it, by one clock for all, and what is seen beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.contract import Device, Inputs, Outputs
from harness.parity import copied

Clock = Callable[[], int]


@dataclass(frozen=True)
class Subject:
    """Something to time: what makes an input, and what happens before, in and after the clock.

    `compute` times `run` alone; `end-to-end` times `prepare`, `run` and `fetch` together.

    Attributes:
        key: its name.
        make: gives the input of a call, outside every window: of a session one that was never there before.
        prepare, run, fetch: see `harness.Session`.
        is_session: `fetch` gives outputs that follow from the input alone, so they can be audited. An input may be a
            tuple of several; then the outputs are as many.
        rows: sequences of a call.
        steps: real time steps of a call, over all its sequences.
        carry: gets each call's outputs, outside every window, before the next input is made.
        device: whose clock times the calls; None for the host's.
        evict: empties the caches before every call, outside its window; None leaves them as they are.
    """

    key: str
    make: Callable[[], Any]
    prepare: Callable[[Any], Any]
    run: Callable[[Any], Any]
    fetch: Callable[[Any], Any]
    is_session: bool = False
    rows: int = 0
    steps: int = 0
    carry: Callable[[Any], Any] = lambda outputs: None
    device: Device | None = None
    evict: Callable[[], object] | None = None


@dataclass(slots=True)
class Witness:
    """What was seen beside the calls of one subject; see `harness.audits`.

    Attributes:
        kept: of some counted calls: the input as it was made, the same input afterwards, and the outputs.
        kept_calls: how many calls these are; an input that is several was one call's.
        around_s: of every counted call at the compute boundary, what prepare and fetch took around it, in seconds.
        repeated_s: the counted calls of a turn that gets one input again and again, in seconds.
        host_s: what the counted calls took by the host's clock, where a device's times them.
    """

    kept: list[tuple[Inputs, Inputs, Any]] = field(default_factory=list)
    kept_calls: int = 0
    around_s: list[float] = field(default_factory=list)
    repeated_s: list[float] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)


class Call(NamedTuple):
    """What one call took, in nanoseconds, and gave.

    Attributes:
        start_ns: when its window began, by the host's clock.
        elapsed_ns: from there to its end, by the device's clock if it has one, else by the host's.
        around_ns: what prepare and fetch took around the window of the compute boundary.
        host_ns: from beginning to end by the host's clock.
        outputs: what fetch gave.
    """

    start_ns: int
    elapsed_ns: int
    around_ns: int
    host_ns: int
    outputs: Any


def timed_call(subject: Subject, boundary: str, is_watched: bool, witness: Witness, clock: Clock) -> Call:
    """One call on an input of its own, kept if it is watched."""
    item = subject.make()
    before = _copied(item) if is_watched else None
    call = one_call(subject, boundary, item, clock)
    if before is not None:
        witness.kept += _parts(before, item, own_outputs(call.outputs))
        witness.kept_calls += 1
    subject.carry(call.outputs)
    return call


def _copied(item: Any) -> Any:
    return tuple(map(_copied, item)) if isinstance(item, tuple) else copied(item)


def _parts(before: Any, after: Any, outputs: Any) -> list[tuple[Inputs, Inputs, Any]]:
    """What was kept of a call, one after the other if its input is several."""
    return list(zip(before, after, outputs, strict=True)) if isinstance(after, tuple) else [(before, after, outputs)]


def one_call(subject: Subject, boundary: str, item: Any, clock: Clock) -> Call:
    """One call on an input; `boundary` is `compute` or `end-to-end`."""
    return (_compute if boundary == "compute" else _end_to_end)(subject, item, clock)


def _compute(subject: Subject, item: Any, clock: Clock) -> Call:
    began = clock()
    prepared = subject.prepare(item)
    if subject.device is not None:
        subject.device.drain()  # what prepare has begun is its own
    evicting = _evict(subject, clock)
    run = subject.run
    if subject.device is not None:
        start, elapsed, host, raw = _on_device(subject.device, run, prepared, clock)
    else:
        start = clock()
        raw = run(prepared)
        elapsed = host = clock() - start
    outputs = subject.fetch(raw)
    return Call(start, elapsed, clock() - began - evicting - host, host, outputs)


def _end_to_end(subject: Subject, item: Any, clock: Clock) -> Call:
    prepare, run, fetch = subject.prepare, subject.run, subject.fetch
    _evict(subject, clock)
    if subject.device is not None:
        start, elapsed, host, outputs = _on_device(subject.device, lambda item: fetch(run(prepare(item))), item, clock)
    else:
        start = clock()
        outputs = fetch(run(prepare(item)))
        elapsed = host = clock() - start
    return Call(start, elapsed, 0, host, outputs)


def _evict(subject: Subject, clock: Clock) -> int:
    """Empty the caches, if that is wanted; how long it took, in nanoseconds."""
    if subject.evict is None:
        return 0
    began = clock()
    subject.evict()
    if subject.device is not None:
        subject.device.drain()
    return clock() - began


def _on_device(device: Device, do: Callable[[Any], Any], argument: Any, clock: Clock) -> tuple[int, int, int, Any]:
    """The same window by a device's clock: it is drained before and after, so nothing of another call is in it, and
    nothing that the call has begun is left out, in whatever queue it was put.

    Returns:
        the start by the host's clock, what it took by the device's and by the host's, in nanoseconds, and the result.
    """
    device.drain()
    start, begin = clock(), device.mark()
    result = do(argument)
    device.drain()
    end = device.mark()
    host = clock() - start
    return start, device.elapsed_ns(begin, end), host, result


def own_outputs(outputs: Any) -> Any:
    """Outputs that nothing writes to any more; what is no array stays, for it may yet be computed."""
    if isinstance(outputs, tuple):
        return tuple(map(own_outputs, outputs))
    if not isinstance(outputs, Outputs):
        return outputs

    def own(part: Any) -> Any:
        return part.copy() if type(part) is np.ndarray else part

    return Outputs(own(outputs.y), tuple(map(own, outputs.state)))
