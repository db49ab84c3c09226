"""Every variant of an architecture against every other: what a table says with another baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from harness import estimates, stats
from harness.store import Run
from harness.tables import BOUNDARIES, Of, instance_medians, looks, point_of, records, sampling
from harness.verdicts import judge

MOST_VARIANTS = 24  # of an architecture; their pairs grow with the square


@dataclass(frozen=True, slots=True)
class Against:
    """One row of the latency table against a baseline: latency over the baseline's, and what is known of it.

    Attributes:
        ratio: with its 95 % interval; below 1 is faster.
        verdict: `faster`, `slower`, `same` or `undecided`.
        half_width: half of the interval, as a share.
        precision_met: is that as narrow as the run wanted.
    """

    ratio: stats.Estimate
    verdict: str
    half_width: float
    precision_met: bool


Row = tuple[str, str, str]  # variant, scenario and boundary
Pairs = Mapping[Row, Against]


class Baselines:
    """What a run's rows are against any variant of their architecture.

    Verdicts with another baseline are judged as the run's own are: together with those of all other rows of the run
    that have the same boundary and keep the baseline they have. Who tries several baselines and keeps the one that
    pleases has no such number.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._looks, self._settings = looks(run), sampling(run)

    @cached_property
    def _medians(self) -> Mapping[Of, Mapping[estimates.Key, float]]:
        return instance_medians(self._run.samples)

    @cached_property
    def _own(self) -> dict[Of, stats.LogMean]:
        """What the run's verdicts were made of."""
        found: dict[Of, stats.LogMean] = {}
        trials = {row["trial"]: row for row in records(self._run.latency)}
        points = {(row["variant"], *point_of(row)): name for name, row in trials.items()}
        for name, row in trials.items():
            base = points.get((row["baseline"], *point_of(row)))
            for boundary in BOUNDARIES:
                ratio = self._ratio((name, boundary), (base, boundary)) if base and base != name else None
                if ratio is not None:
                    found[name, boundary] = ratio
        return found

    def pairs(self, rows: pd.DataFrame, latency: pd.DataFrame) -> dict[str, Pairs]:
        """Of every variant that could be a baseline, what the others are against it; nothing of more than 24 variants.

        Args:
            rows: of the run's summary, all of one setting and architecture.
            latency: the latency table's rows of the setting; of a sweep the first shape of every scenario counts.
        """
        names = list(dict.fromkeys(rows.loc[~rows["is_floor"], "variant"]))
        if not 1 < len(names) <= MOST_VARIANTS:
            return {}
        shown = records(latency.drop_duplicates(["variant", "scenario", "boundary"]))
        trials = {(r["variant"], r["scenario"], r["boundary"]): r["trial"] for r in shown if r["variant"] in names}
        return {name: found for name in names if (found := self._against(name, trials))}

    def _against(self, baseline: str, trials: Mapping[tuple[str, str, str], str]) -> dict[Row, Against]:
        found = {}
        for boundary in BOUNDARIES:
            ratios = {}
            for (variant, scenario, where), trial in trials.items():
                base = trials.get((baseline, scenario, boundary))
                if where == boundary and variant != baseline and base is not None:
                    ratio = self._ratio((trial, boundary), (base, boundary))
                    if ratio is not None:
                        ratios[variant, scenario, boundary] = ratio
            replaced = {(trial, boundary) for trial in trials.values()}
            others = [ratio for of, ratio in self._own.items() if of[1] == boundary and of not in replaced]
            words = judge([*ratios.values(), *others], self._settings.tolerance, self._looks)
            for (at, ratio), word in zip(ratios.items(), words, strict=False):  # the rows' own come first
                estimate = stats.estimate(ratio, self._looks)
                half = estimates.half_width(estimate)
                found[at] = Against(estimate, word, half, half <= self._settings.precision)
        return found

    def _ratio(self, own: Of, base: Of) -> stats.LogMean | None:
        known = self._medians
        return estimates.ratio(known[own], known[base]) if {own, base} <= known.keys() else None
