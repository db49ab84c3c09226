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
        if old and young and old.served and young.served and old.terms != young.terms:
            absent.append(Difference(str(point), old.terms, young.terms, UNDECIDED))
        elif old and young and old.end == young.end == OK:
            pairs.append((point, old, young))
        else:
            theirs, own = (load.end if load else NOT_THERE for load in (old, young))
            absent.append(Difference(str(point), theirs, own, _outcome(old, young)))
    return pairs, absent


def _outcome(old: Load | None, young: Load | None) -> str:
    """What a gate makes of limits that cannot be compared; nothing where BASE never had one."""
    if not old or not old.served:
        return ""
    is_open = old.is_late or (young and young.served)
    return UNDECIDED if is_open else FAIL


def offered_otherwise(base: Side, new: Side) -> tuple[Difference, ...]:
    """In what the suites differ by which loads were offered that both have."""
    known: list[dict[str, Any]] = [{}, {}]
    for point in (point for point in base.loads if point in new.loads):
        for settings, side in zip(known, (base, new), strict=True):
            settings |= side.loads[point].settings
    return differing(*known)
