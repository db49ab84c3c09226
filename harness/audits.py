"""Audits of timed calls: was what the clock saw the work itself? Pure functions of evidence taken beside the calls.

The parity checks before and after timing prove a session right; they do not prove that the timed calls did the work.
So every timed call gets a fresh input, made outside the window, and evidence is taken beside the calls while they are
timed. Of MLPerf's audits (MLCommons, "MLPerf Inference compliance tests") `outputs` is like TEST01 and `repeats` like
TEST04, which is made here at fixed lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.contract import COMPUTE_DTYPES
from harness.parity import Observation, limit
from harness.rounding import PEAK_FACTORS

AUDITS = {
    "outputs": "a random part of the timed outputs is what the oracle gives for their own inputs",
    "inputs": "timed calls leave their inputs as they were",
    "fetch": "prepare and fetch, outside the compute window, do not do the work",
    "repeats": "the same input again is not faster than a fresh one",
    "bound": "no call is faster than its matrix products can be on this processor",
    "clock": "the worker's clock runs as fast as the engine's, and a device's as fast as the worker's",
    "rest": "nothing works on after the calls have returned",
}
OUTPUTS_FACTOR = 4.0  # times parity's limit: rounding differs between inputs, and what is meant to be found is gross
REDUCED_OUTPUTS_FACTOR = 1.0  # in fewer bits the limit itself is some hundredths, and room enough
FREE_SECONDS = 50e-6  # what prepare and fetch may take in any case
DEVICE_SECONDS = 500e-6  # the same where arrays go to a device and back, and each way is waited for
COPIED_BYTES_PER_S = 1e9  # and what moving a call's arrays may take besides
AROUND_SHARE = 0.5  # or else this share of the call itself
LEAST_RATIO = 0.5  # of a repeated input's latency to a fresh one's, whose arrays the caches know less well
REPEATS_CONFIDENCE = 0.999  # one-sided: hundreds of trials are audited in a run, and none of them wrongly failed
BOUND_FACTOR = 4.0  # NumPy's matrix product is not the best there is
CLOCK_SHARE, CLOCK_SECONDS = 0.5, 0.5  # of the engine's time that the worker must have counted, but for so much: an
# engine that waits for a core sees more time pass than its worker
RESTING_CORES = 0.2  # what an idle worker may use


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen beside the timed calls of one trial in one instance.

    Attributes:
        compute_s: median of the counted calls at the compute boundary, in seconds.
        around_s: median of what prepare and fetch took around these calls.
        moved_bytes: size of a call's inputs and outputs; 0 where no output was kept.
        flops: floating-point operations of a call's matrix products: 2 for every element of a weight matrix, row and
            step (Sze et al., "Efficient Processing of Deep Neural Networks", section 2).
        peak_flops_per_s: what NumPy's matrix product attains in the same process; None where calls run elsewhere.
        repeated_s: median of the calls that got one input again and again; None for a training step.
        outputs: how far kept outputs of timed calls were from the oracle; none for a training step.
        changed_inputs: how many of their inputs were not as before.
        worker_s: how long the whole request took by the worker's clock.
        engine_s: and how long by the engine's.
        host_s: median of the counted calls by the host's clock, where a device's times them; None elsewhere.
    """

    compute_s: float
    around_s: float
    moved_bytes: int
    flops: float
    peak_flops_per_s: float | None
    repeated_s: float | None
    outputs: list[Observation] = field(default_factory=list)
    changed_inputs: int = 0
    worker_s: float = 0.0
    engine_s: float = 0.0
    host_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one audit.

    Attributes:
        audit: its name, of `AUDITS`.
        value: what was found, in the audit's own unit.
        allowed: the largest value that passes; of `repeats` and `clock` the least.
        problem: why it failed, in words; empty if it passed.
    """

    audit: str
    value: float
    allowed: float
    problem: str = ""


def examine(
    evidence: Sequence[Evidence], ratios: Sequence[float], yardstick: Sequence[Observation], compute_dtype: str
) -> list[Finding]:
    """The findings of every audit for which there is evidence, except `rest`.

    Args:
        evidence: one a timed instance of a process, at least one.
        ratios: repeated over fresh latency of every instance of the trial so far, in any process; asked once a process.
        yardstick: what parity was judged by.
        compute_dtype: the format in which the session computes; see `harness.rounding`.
    """
    findings = [_outputs(evidence, yardstick, compute_dtype), _inputs(evidence), _fetch(evidence), _repeats(ratios)]
    findings += [_bound(evidence, BOUND_FACTOR * PEAK_FACTORS.get(compute_dtype, 1.0)), _clock(evidence)]
    return [finding for finding in findings if finding is not None]


def examine_served(evidence: Sequence[Evidence], yardstick: Sequence[Observation], compute_dtype: str) -> list[Finding]:
    """The findings of those audits that can be made of requests served under a load, beside `rest`.

    Args:
        evidence: one a load that was offered, at least one; `compute_s` is what all its calls took together, and
            `flops` what they all computed.
        yardstick, compute_dtype: as in `examine`.
    """
    findings = [_outputs(evidence, yardstick, compute_dtype), _inputs(evidence)]
    findings += [_bound(evidence, BOUND_FACTOR * PEAK_FACTORS.get(compute_dtype, 1.0)), _clock(evidence)]
    return [finding for finding in findings if finding is not None]


def rest(busy_cores: float) -> Finding:
    """Whether a worker rests while nothing is asked of it."""
    text = (
        f"{busy_cores:.2f} cores are busy after its calls have returned; a call must return when its work is finished"
    )
    return Finding("rest", busy_cores, RESTING_CORES, text if busy_cores >= RESTING_CORES else "")


def repeats_ratio(evidence: Evidence) -> float | None:
    """A repeated input's latency over a fresh one's; None where there is none."""
    if evidence.repeated_s is None or not (evidence.repeated_s > 0 and evidence.compute_s > 0):
        return None
    return evidence.repeated_s / evidence.compute_s


def _outputs(evidence: Sequence[Evidence], yardstick: Sequence[Observation], compute_dtype: str) -> Finding | None:
    """The error over what is allowed, of the output that is farthest off."""
    kept = [observation for own in evidence for observation in own.outputs]
    if not kept:
        return None
    largest: Mapping[str, float] = {
        part: max((o.rmse for o in yardstick if o.part == part and math.isfinite(o.rmse)), default=0.0)
        for part in {o.part for o in kept}
    }
    worst, text = 0.0, ""
    factor = REDUCED_OUTPUTS_FACTOR if compute_dtype in COMPUTE_DTYPES else OUTPUTS_FACTOR
    for o in kept:
        allowed = factor * limit(largest[o.part], o.reference_rms, compute_dtype)
        share = o.rmse / allowed if allowed else (math.inf if o.rmse else 0.0)
        if o.problem or not share <= 1:
            text = f"{o.part} of a timed call: {o.problem or f'error {o.rmse:.1e}, allowed {allowed:.1e}'}"
            share = math.inf if o.problem or math.isnan(share) else share
        worst = max(worst, share)
    return Finding("outputs", worst, 1.0, text)


def _inputs(evidence: Sequence[Evidence]) -> Finding | None:
    if not any(own.outputs for own in evidence):
        return None
    changed = sum(own.changed_inputs for own in evidence)
    return Finding("inputs", changed, 0.0, "a timed call changed its inputs" if changed else "")


def _fetch(evidence: Sequence[Evidence]) -> Finding:
    around, compute = median(own.around_s for own in evidence), median(own.compute_s for own in evidence)
    moved = max(own.moved_bytes for own in evidence)
    free = DEVICE_SECONDS if any(own.peak_flops_per_s is None for own in evidence) else FREE_SECONDS
    allowed = max(AROUND_SHARE * compute, free + moved / COPIED_BYTES_PER_S)
    text = f"prepare and fetch take {around:.2g} s around a call of {compute:.2g} s; the work belongs into run"
    return Finding("fetch", around, allowed, text if around > allowed else "")


def _repeats(ratios: Sequence[float]) -> Finding | None:
    """One-sided: is it sure that a repeated input is faster than it may be? Student's t over the instances' logs."""
    from harness import stats  # it imports SciPy, which no worker needs

    if len(ratios) < 2:
        return None
    typical = stats.unit_mean([math.log(ratio) for ratio in ratios], "instance")
    value, p = math.exp(typical.mean), stats.p_below(typical, LEAST_RATIO)
    text = (
        f"the same input again takes {value:.2g} times as long as a fresh one; nothing may be remembered between calls"
    )
    return Finding("repeats", value, LEAST_RATIO, text if p < 1 - REPEATS_CONFIDENCE else "")


def _bound(evidence: Sequence[Evidence], factor: float) -> Finding | None:
    known = [own for own in evidence if own.peak_flops_per_s and own.compute_s > 0]
    if not known:
        return None
    rate = median(own.flops / own.compute_s for own in known)
    peak = max(own.peak_flops_per_s or 0.0 for own in known)
    text = f"its products would need {rate:.2g} FLOP/s; NumPy's best matrix product here attains {peak:.2g}"
    return Finding("bound", rate, factor * peak, text if rate > factor * peak else "")


def _clock(evidence: Sequence[Evidence]) -> Finding:
    seen, waited = sum(own.worker_s for own in evidence), sum(own.engine_s for own in evidence)
    least = CLOCK_SHARE * waited - CLOCK_SECONDS
    text = f"the worker's clock counted {seen:.2g} s while {waited:.2g} s passed"
    for own in evidence:
        if own.host_s is not None and own.compute_s < CLOCK_SHARE * own.host_s - DEVICE_SECONDS:
            text = f"the device's clock counted {own.compute_s:.2g} s a call while {own.host_s:.2g} s passed"
            return Finding("clock", own.compute_s, CLOCK_SHARE * own.host_s - DEVICE_SECONDS, text)
    return Finding("clock", seen, least, text if seen < least else "")
