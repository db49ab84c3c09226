"""Verdicts: from ratios to judgements, with one error rate for a whole table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from harness.stats import ONE_LOOK, LogMean, p_above, p_below, p_different, p_equivalent

FASTER, SLOWER, SAME, UNDECIDED = "faster", "slower", "same", "undecided"
CARRIES_MORE, CARRIES_LESS = "carries more", "carries less"
BETTER, WORSE = "better", "worse"
PASS, FAIL = "pass", "fail"  # a gate that does neither is UNDECIDED
ALPHA = 0.05


class Direction(StrEnum):
    """Which way a metric is better."""

    LOWER = "lower"
    HIGHER = "higher"


DIRECTIONS: Mapping[str, Direction] = MappingProxyType(
    {
        "latency": Direction.LOWER,
        "throughput": Direction.HIGHER,
        "capacity": Direction.HIGHER,
        "accuracy": Direction.HIGHER,
        "mean squared error": Direction.LOWER,
    }
)
_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "latency": (FASTER, SLOWER),
        "throughput": (FASTER, SLOWER),
        "capacity": (CARRIES_MORE, CARRIES_LESS),
    }
)  # of what is better and worse; any other metric has these words themselves


def judge(
    ratios: Sequence[LogMean],
    tolerance: float,
    looks: Sequence[int] = ONE_LOOK,
    alpha: float = ALPHA,
    metric: str = "latency",
) -> list[str]:
    """One verdict per ratio to the baseline; the chance that any of them is wrong is at most `alpha`.

    Each ratio has two claims: it differs from 1, and it is 1 within the tolerance. Their p-values are walked in
    ascending order; each is held against `alpha` divided by the number of ratios that still have a claim not accepted,
    and the walk ends at the first that fails.

    Why this holds: a ratio's two null hypotheses ("it is 1", "it is outside the tolerance") exclude each other, so at
    most one of them is true. When the first true null's turn comes only false ones have been rejected, so every true
    null belongs to another of the ratios that the divisor counts, and by Bonferroni the chance that the smallest of
    their p-values is under the threshold is at most `alpha`.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979, with the logical restrictions of
    Shaffer, "Modified sequentially rejective multiple test procedures", 1986 (her S2).

    Args:
        ratios: own over baseline, as log means.
        tolerance: 0.01 is 1 %.
        looks: units at each planned look.
        alpha: the family-wise error.
        metric: one of `DIRECTIONS`, which knows whether lower is better.

    Returns:
        Per ratio `same` if that claim was accepted (even where a small difference was found too); else `faster` or
        `slower`, of a capacity `carries more` or `carries less`, of what is neither `better` or `worse`; else
        `undecided`.

    Raises:
        ValueError: an unknown metric, or a tolerance that is not positive.
    """
    if metric not in DIRECTIONS:
        raise ValueError(f"no metric {metric!r}; there are {', '.join(DIRECTIONS)}")
    claims = sorted(
        [(p_different(ratio, looks), index, False) for index, ratio in enumerate(ratios)]
        + [(p_equivalent(ratio, tolerance, looks), index, True) for index, ratio in enumerate(ratios)]
    )
    open_claims = [2] * len(ratios)
    verdicts = [UNDECIDED] * len(ratios)
    remaining = len(ratios)  # that still have a claim which is not accepted
    for p, index, is_same in claims:
        if p > alpha / max(remaining, 1):
            break
        open_claims[index] -= 1
        remaining -= open_claims[index] == 0
        if is_same:
            verdicts[index] = SAME
        elif verdicts[index] != SAME:
            verdicts[index] = _word(ratios[index], metric)
    return verdicts


def gate(
    ratios: Sequence[LogMean],
    max_slowdown: float,
    looks: Sequence[int] = ONE_LOOK,
    alpha: float = ALPHA,
    once: Sequence[LogMean] = (),
) -> list[str]:
    """Per ratio, new over base, whether it keeps within the slowdown that is allowed: `pass`, `fail` or `undecided`.

    A ratio fails if it is shown to be above the limit; the chance that any fails wrongly is at most `alpha` (Holm
    1979). It passes if it is shown to be below, each at `alpha` without a correction: the gate opens only if all pass,
    and then the chance that it opens wrongly is at most `alpha` already (Berger, "Multiparameter hypothesis testing
    and acceptance sampling", 1982: intersection-union).

    Args:
        ratios: new over base, of latencies, as log means; of capacities base over new.
        max_slowdown: 0.03 is 3 %.
        looks: units at each planned look.
        alpha: the chance of a wrong decision in either direction.
        once: further ratios, of what is looked at once only; they are held together with the others, and come last.

    Raises:
        ValueError: a slowdown of -1 or less.
    """
    if not max_slowdown > -1:
        raise ValueError(f"a slowdown lies above -1: {max_slowdown}")
    limit = 1 + max_slowdown
    planned = [*((ratio, looks) for ratio in ratios), *((ratio, ONE_LOOK) for ratio in once)]
    outcomes = [PASS if p_below(ratio, limit, own) <= alpha else UNDECIDED for ratio, own in planned]
    slower = sorted((p_above(ratio, limit, own), index) for index, (ratio, own) in enumerate(planned))
    for rank, (p, index) in enumerate(slower):
        if p > alpha / (len(slower) - rank):
            break
        outcomes[index] = FAIL
    return outcomes


def gate_exit_code(outcomes: Sequence[str]) -> int:
    """0 if all pass, 1 if any fails, 2 if that is undecided. A gate that compared nothing is undecided."""
    if FAIL in outcomes:
        return 1
    return 0 if outcomes and all(outcome == PASS for outcome in outcomes) else 2


def _word(ratio: LogMean, metric: str) -> str:
    is_better = (ratio.mean < 0) == (DIRECTIONS[metric] is Direction.LOWER)
    better, worse = _WORDS.get(metric, (BETTER, WORSE))
    return better if is_better else worse
