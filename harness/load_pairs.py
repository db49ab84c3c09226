"""The load trials of two sides, matched: which limits can be compared, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.sides import NOT_THERE, OK, Difference, Load, Point, Side, differing
from harness.verdicts import FAIL, UNDECIDED


def matched_loads(
    points: Mapping[Point, Point], base: Side, new: Side
) -> tuple[list[tuple[Point, Load, Load]], list[Difference]]:
    """The loads of which both sides know the limit, and of all else what each side says and a gate makes of it.

    Args:
        points: NEW's, each to its own of BASE.
        base, new: may be the same.
    """
    pairs: list[tuple[Point, Load, Load]] = []
    absent = []
    for point, against in points.items():
        old, young = base.loads.get(against), new.loads.get(point)
        terms = _terms(old, young) if old and young else ("", "")
        if old and old.served and len(set(terms)) > 1:
            absent.append(Difference(str(point), *terms, UNDECIDED))
        elif old and young and old.end == young.end == OK:
            pairs.append((point, old, young))
        else:
            theirs, own = (load.end if load else NOT_THERE for load in (old, young))
            absent.append(Difference(str(point), theirs, own, _outcome(old, young)))
    return pairs, absent


def _terms(old: Load, young: Load) -> tuple[str, str]:
    """By what both were judged; nothing where NEW was not."""
    if young.trial["status"] != OK and not young.is_late:
        return "", ""
    limits = (old.limits, young.limits)
    is_told = all(own.by_slice for own in limits) and len({own.is_confirmed for own in limits}) > 1
    theirs, own = ("" if own.is_confirmed or not is_told else ", not confirmed" for own in limits)
    return old.terms + theirs, young.terms + own


def _outcome(old: Load | None, young: Load | None) -> str:
    """What a gate makes of limits that cannot be compared; nothing where BASE never had one."""
    if not old or not old.served:
        return ""
    if old.is_late or (young and young.served):
        return UNDECIDED
    carried = min((limit.sustained for limit in old.limits.by_slice.values()), default=0.0)
    is_untried = young and young.trial["status"] == OK and young.limits.least > carried
    return UNDECIDED if is_untried else FAIL  # NEW was offered nothing as low as what a worker of BASE carried


def offered_otherwise(base: Side, new: Side) -> tuple[Difference, ...]:
    """In what the suites differ by which loads were offered that both have."""
    known: list[dict[str, Any]] = [{}, {}]
    for point in (point for point in base.loads if point in new.loads):
        for settings, side in zip(known, (base, new), strict=True):
            settings |= side.loads[point].settings
    return differing(*known)
