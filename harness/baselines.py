"""Every variant of an architecture against every other: what a table says with another baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness import estimates, stats
from harness.store import Run
from harness.tables import BOUNDARIES, Of, looks, records, sampling
from harness.verdicts import judge

MOST_VARIANTS = 24  # of an architecture; their pairs grow with the square


@dataclass(frozen=True, slots=True)
class Against:
    """One row of the latency table against a baseline: latency over the baseline's, and what is known of it.

    Attributes:
        ratio: with its 95 % interval; below 1 is faster.
        verdict: `faster`, `slower`, `same` or `undecided`.
        half_width: half of the interval, as a share.
    """

    ratio: stats.Estimate
    verdict: str
    half_width: float


Medians = Mapping[Of, Mapping[estimates.Key, float]]
Pairs = Mapping[tuple[str, str, str], Against]  # by variant, scenario and boundary


def baselines(run: Run, rows: pd.DataFrame, latency: pd.DataFrame, medians: Callable[[], Medians]) -> dict[str, Pairs]:
    """Of every variant that could be a baseline, what the others of its architecture are against it.

    Verdicts of one baseline and boundary hold together with 95 %, over all scenarios of these rows. Who tries several
    baselines and keeps the one that pleases has no such number.

    Args:
        run: the run.
        rows: of its summary, all of one setting and architecture.
        latency: the latency table's rows of the setting.
        medians: gives those of the run's instances if they are needed; see `harness.tables.instance_medians`.

    Returns:
        Nothing where there are more than 24 variants.
    """
    names = list(dict.fromkeys(rows.loc[~rows["is_floor"], "variant"]))
    if not 1 < len(names) <= MOST_VARIANTS:
        return {}
    own = [
        row for row in records(latency.drop_duplicates(["variant", "scenario", "boundary"])) if row["variant"] in names
    ]
    trials = {(row["variant"], row["scenario"], row["boundary"]): (row["trial"], row["boundary"]) for row in own}
    return {name: found for name in names if (found := _against(run, name, trials, medians()))}


def _against(
    run: Run, baseline: str, trials: Mapping[tuple[str, str, str], Of], known: Medians
) -> dict[tuple[str, str, str], Against]:
    found = {}
    for boundary in BOUNDARIES:
        ratios = {}
        for (variant, scenario, where), of in trials.items():
            base = trials.get((baseline, scenario, boundary))
            if where == boundary and variant != baseline and base is not None and {of, base} <= known.keys():
                ratio = estimates.ratio(known[of], known[base])
                if ratio is not None:
                    ratios[variant, scenario, where] = ratio
        words = judge(list(ratios.values()), sampling(run).tolerance, looks(run))
        for (at, ratio), word in zip(ratios.items(), words, strict=True):
            estimate = stats.estimate(ratio, looks(run))
            found[at] = Against(estimate, word, estimates.half_width(estimate))
    return found
