"""The tables of the proof, as Markdown, each under the command that made its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from benchmarks import analysis
from benchmarks.analysis import Comparison, Process, Rule
from benchmarks.null import NullReading
from benchmarks.peers import PeerRates
from benchmarks.workloads import SLOWDOWNS_PERCENT, slowed_arm
from harness import stats, verdicts

SCRIPT = "python benchmarks/truth.py"
CLAIMS = {"2 %": Rule(precision=0.01, first=5, most=10), "1 %": Rule(precision=0.005, first=5, most=20)}
TANGO_SECONDS = 1.0
BLOCKS = (5, 10)  # processes of each of two separate runs
CI_PERCENT = (2, 5)  # slowdowns looked for across processes
MOST_ALARMS, HIGHEST_BOUND = 0.05, 0.075  # of identical arms: the rate, and the upper end of its interval
NONE = "–"
PAIR = "-pair"

ALARM_COLUMNS = ("identical arms", "interval excludes 1", "called different")

Recorded = Mapping[str, Sequence[Process]]  # by recording


@dataclass(frozen=True, slots=True)
class Resampling:
    """How many comparisons of resampled processes stand beside the disjoint ones, and the seed of their drawing."""

    trials: int
    seed: int


def summary(
    recorded: Recorded,
    peers: Mapping[str, Sequence[PeerRates]],
    nulls: Sequence[NullReading],
    facts: Sequence[str],
    resampling: Resampling,
) -> str:
    """The whole page.

    Args:
        recorded: the processes of each recording; those with two arms alone are called `...-pair`.
        peers: rates by workload and noise.
        nulls: what nothing costs.
        facts: lines on the machine.
    """
    many = {name: found for name, found in recorded.items() if found and not name.endswith(PAIR)}
    alone = {name: found for name, found in recorded.items() if found and name.endswith(PAIR)}
    parts = ["# Can the timing be believed?", "\n".join(facts)]
    if many or alone:
        parts += ["## What was recorded", _recorded_table(many | alone)]
    if many:
        for claim, rule in CLAIMS.items():
            parts += [f"## A slowdown of {claim}", _rule_text(rule), _claim_table(many, rule, resampling)]
        parts += ["## One second, one percent, one error", _TANGO_TEXT, _tango_table(many, resampling)]
        parts += ["## Every arm in processes of its own", _APART_TEXT, _apart_table(many, resampling.seed)]
        parts += ["## Absolute latency", _LATENCY_TEXT, _latency_table(many, resampling.seed)]
    if alone:
        parts += ["## Two arms alone", _ALONE_TEXT, _alone_table(alone, many, resampling)]
    if any(peers.values()):
        parts += ["## Other tools", _PEERS_TEXT, _peers_table(peers)]
    if nulls:
        parts += ["## What nothing costs", _NULL_TEXT, _null_table(nulls)]
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------------- tables


def _recorded_table(recorded: Recorded) -> str:
    columns = ["recording", "processes", "instances", "arms", "wall s a process", "A1, median", "planted, as measured"]
    rows = []
    for name, processes in recorded.items():
        arms = list(processes[0].cells)
        ratios = [
            f"{percent} %: {_ratio(analysis.log_ratio(processes, (slowed_arm(percent), 'A1')))}"
            for percent in SLOWDOWNS_PERCENT
            if slowed_arm(percent) in arms
        ]
        latency_s = float(np.median(list(analysis.medians(processes, "A1").values())))
        instances = sum(len(process.cells["A1"]) for process in processes)
        wall_s = fmean(process.wall_s for process in processes)
        cells = (name, len(processes), instances, len(arms), f"{wall_s:.1f}", _time(latency_s), "; ".join(ratios))
        rows.append([str(cell) for cell in cells])
    return _command("record") + _table(columns, rows)


def _rule_text(rule: Rule) -> str:
    looks = ", ".join(str(look) for look in rule.looks)
    return (
        f"Looks after {looks} processes; stops when the interval's half-width is at most {100 * rule.precision:g} %. "
        "Rates are of comparisons of which no two share both a process and an arm, with the exact 95 % interval of "
        "Clopper and Pearson; after a slash, of resampled processes, which has no interval. An interval of identical "
        "arms that excludes 1 is a false alarm; where both are shown to be the same within the tolerance too, they are "
        "not called different. Measuring: both arms, all timed calls, mean (90th percentile) of the comparisons of "
        "identical arms, and of the planted 2 %; warm-up is extra."
    )


def _pooled_text(alarms: Sequence[Comparison]) -> str:
    """All recordings in one sentence, and whether that is as seldom as it should be."""
    excluding = analysis.share_excluding_one(alarms)
    if excluding is None:
        return "Too few processes for one comparison of identical arms."
    different = _rate(analysis.share(alarms, analysis.DIFFERENT))
    is_met = excluding.value <= MOST_ALARMS and excluding.high <= HIGHEST_BOUND
    return (
        f"All recordings together, {len(alarms)} disjoint comparisons of identical arms, counted as independent: the "
        f"interval excludes 1 in {_rate(excluding)}; they are called different in {different}. That the interval of "
        f"identical arms excludes 1 in at most {100 * MOST_ALARMS:g} %, with an upper bound of at most "
        f"{100 * HIGHEST_BOUND:g} %, is {'shown' if is_met else 'not shown'}."
    )


def _claim_table(recorded: Recorded, rule: Rule, resampling: Resampling) -> str:
    found = {
        name: (
            analysis.identical_comparisons(processes, rule),
            {percent: analysis.planted_comparisons(processes, percent, rule) for percent in SLOWDOWNS_PERCENT},
        )
        for name, processes in recorded.items()
    }
    rows = []
    for name, (alarms, detected) in found.items():
        smooth = _resampled(recorded[name], lambda _, __: rule, resampling)
        rows.append([name, *_claim_cells(alarms, detected, smooth)])
    everything = [comparison for alarms, _ in found.values() for comparison in alarms]
    if len(found) > 1:
        planted = {
            percent: [comparison for _, detected in found.values() for comparison in detected[percent]]
            for percent in SLOWDOWNS_PERCENT
        }
        rows.append(["all together", *_claim_cells(everything, planted, {})])
    columns = ["recording", *ALARM_COLUMNS, *(f"finds {p} %" for p in SLOWDOWNS_PERCENT)]
    columns += ["measuring s a pair, identical", "2 %", "warm-up s", "narrow enough"]
    return _command("analyse") + _table(columns, rows) + "\n\n" + _pooled_text(everything)


def _claim_cells(
    alarms: Sequence[Comparison], detected: Mapping[int, Sequence[Comparison]], smooth: Mapping[int, str]
) -> list[str]:
    finds = [_rate(analysis.share(detected[p], {verdicts.SLOWER})) + smooth.get(p, "") for p in SLOWDOWNS_PERCENT]
    both = [*alarms, *detected[2]]
    reached = f"{100 * fmean(comparison.is_reached for comparison in both):.0f} %" if both else NONE
    return [
        *(*_alarm_cells(alarms), *finds),
        *(_seconds(alarms, "measured_s"), _seconds(detected[2], "measured_s"), _seconds(both, "warmup_s"), reached),
    ]


def _alarm_cells(alarms: Sequence[Comparison]) -> list[str]:
    rates = analysis.share_excluding_one(alarms), analysis.share(alarms, analysis.DIFFERENT)
    return [str(len(alarms)), *map(_rate, rates)]


_TANGO_TEXT = (
    "Tango's mark: a change of 1 % is found in 1 s of measuring, 9 times of 10, and identical code is taken for "
    "different at most 1 time of 20. One look, after as many processes as fit into 1 s of both arms' timed calls."
)


def _tango_table(recorded: Recorded, resampling: Resampling) -> str:
    def rule_of(processes: Sequence[Process], percent: int) -> Rule:
        return analysis.budget_rule(processes, (slowed_arm(percent), "A1"), TANGO_SECONDS)

    rows, everything = [], list[Comparison]()
    for name, processes in recorded.items():
        rule = rule_of(processes, 1)
        alarms = analysis.identical_comparisons(processes, rule)
        detected = analysis.planted_comparisons(processes, 1, rule)
        smooth = _resampled(processes, rule_of, resampling)[1]
        finds = _rate(analysis.share(detected, {verdicts.SLOWER})) + smooth
        rows.append([name, str(rule.most), _seconds(detected, "measured_s"), *_alarm_cells(alarms), finds])
        everything += alarms
    columns = ["recording", "processes", "measuring s a pair", *ALARM_COLUMNS, "finds 1 %"]
    return _command("analyse") + _table(columns, rows) + "\n\n" + _pooled_text(everything)


_APART_TEXT = (
    "What is recommended where arms cannot share a process, as in continuous integration. One run: two interpreters "
    "take turns; two processes that followed each other are a slice, one for each arm, and the rule is that of the 2 % "
    "claim, by slices. Two runs: so many processes in a row are BASE, and as many that followed are NEW, compared as "
    "`harness compare` does, with the canary's shift. Comparisons share no process, so there are few: A1 with itself, "
    "and slowed arms with A1. After a slash stands the share over all identical arms in the place of A1; those share "
    "processes, so it has no interval. The two runs follow each other, but for what was recorded between two rounds; "
    "runs of two days meet a machine that differs more."
)


def _apart_table(recorded: Recorded, seed: int) -> str:
    rule = CLAIMS["2 %"]
    ways: dict[str, Callable[[Sequence[Process], analysis.Pair], list[Comparison]]] = {
        f"one run, {rule.first} to {rule.most} slices": partial(analysis.across_processes, rule=rule, seed=seed)
    }
    ways |= {f"two runs of {block}": partial(analysis.separate_runs, block=block) for block in BLOCKS}
    rows = []
    for way, compared in ways.items():
        found = [(name, _apart_comparisons(processes, compared)) for name, processes in recorded.items()]
        if len(found) > 1:
            found.append(("all together", [_joined(each) for each in zip(*(parts for _, parts in found), strict=True)]))
        rows += [[name, way, *_apart_cells(parts)] for name, parts in found]
    columns = ["recording", "way", *ALARM_COLUMNS, *(f"finds {percent} %" for percent in CI_PERCENT)]
    columns += ["interval ±, median", "measuring s a pair"]
    return _command("analyse") + _table(columns, rows)


Apart = tuple[list[Comparison], list[Comparison]]  # with A1, and with every identical arm in its place


def _apart_comparisons(
    processes: Sequence[Process], compared: Callable[[Sequence[Process], analysis.Pair], list[Comparison]]
) -> list[Apart]:
    """Of identical arms, then of each of the slowdowns."""
    copies = [arm for arm in processes[0].cells if arm.startswith("A")]
    slowed = [slowed_arm(percent) for percent in CI_PERCENT]
    pairs = [[(arm, arm) for arm in copies]]
    pairs += [[(own, arm) for arm in copies if own in processes[0].cells] for own in slowed]
    found = [[compared(processes, pair) for pair in each] for each in pairs]
    return [(each[0] if each else [], [comparison for one in each for comparison in one]) for each in found]


def _joined(parts: Sequence[Apart]) -> Apart:
    first, every = ([comparison for part in parts for comparison in part[k]] for k in (0, 1))
    return first, every


def _apart_cells(parts: Sequence[Apart]) -> list[str]:
    (alarms, every), *planted = parts
    sharings: list[Callable[[Sequence[Comparison]], stats.Estimate | None]] = [
        analysis.share_excluding_one,
        partial(analysis.share, wanted=analysis.DIFFERENT),
        *(partial(analysis.share, wanted={verdicts.SLOWER}) for _ in planted),
    ]
    counted = zip((parts[0], *parts), sharings, strict=True)
    rates = [f"{_rate(share(own))} / {_percent(share(all_arms))}" for (own, all_arms), share in counted]
    half = f"{100 * np.median([comparison.half_width for comparison in every]):.1f} %" if every else NONE
    return [str(len(alarms)), *rates, half, _seconds(alarms, "measured_s")]


_LATENCY_TEXT = (
    f"How often the 95 % interval of A1's latency, from {analysis.SLICES} processes, holds the truth. The truth is not "
    "known; the geometric mean of all medians of the recording stands for it. Spread: a group's processes lie all over "
    "the recording. Neighbours: they followed each other, so what drifts from minute to minute is not in the interval."
)


def _latency_table(recorded: Recorded, seed: int) -> str:
    rows = []
    for name, processes in recorded.items():
        arms = [arm for arm in processes[0].cells if arm.startswith("A")]
        found = [analysis.latency_coverage(processes, "A1", each) for each in (seed, None)]
        all_arms = [analysis.latency_coverage(processes, arm, seed) for arm in arms]
        rates = [interval.value for interval in all_arms if interval]
        mean = f"{100 * fmean(rates):.1f} %" if rates else NONE
        rows.append([name, str(found[0].replicates if found[0] else 0), *map(_rate, found), mean])
    columns = ["recording", "groups", "spread", "neighbours", "spread, mean of the identical arms (not independent)"]
    return _command("analyse") + _table(columns, rows)


_ALONE_TEXT = (
    "Two arms take turns, as in a real comparison, instead of all of them. The spread of the ratio from instance to "
    "instance, and the ratio, stand beside those of the large recording. Wall seconds are those of the processes "
    "that the comparison took, from start to end."
)


def _alone_table(alone: Recorded, many: Recorded, resampling: Resampling) -> str:
    pair = (slowed_arm(2), "A1")
    rows = []
    for name, processes in alone.items():
        large = many.get(name.removesuffix(PAIR), [])
        for claim, rule in CLAIMS.items():
            found = analysis.disjoint(processes, pair, rule)
            drawn = analysis.resampled(processes, pair, rule, resampling.trials, resampling.seed)
            smooth = f" / {_percent(analysis.share(drawn, {verdicts.SLOWER}))}" if drawn else ""
            spreads = [
                f"{100 * analysis.instance_spread(each, pair):.2f} %" if each else NONE for each in (processes, large)
            ]
            ratios = [_ratio(analysis.log_ratio(each, pair)) if each else NONE for each in (processes, large)]
            finds = _rate(analysis.share(found, {verdicts.SLOWER})) + smooth
            taken = found or drawn
            rows.append(
                [
                    name,
                    f"for {claim}",
                    *spreads,
                    *ratios,
                    finds,
                    _seconds(taken, "measured_s"),
                    _seconds(taken, "wall_s"),
                ]
            )
    columns = ["recording", "rule", "spread", "spread among all", "ratio", "ratio among all", "finds 2 %"]
    columns += ["measuring s a pair", "wall s a pair"]
    return _command("record") + _table(columns, rows)


_PEERS_TEXT = (
    "The same calls through other tools with their defaults, one thread, in processes of their own. All pairs of runs "
    "are compared, so pairs are not independent of each other. `Tuned`: the threshold was chosen afterwards so that "
    "false alarms are 5 %, which no user can do."
)


def _peers_table(peers: Mapping[str, Sequence[PeerRates]]) -> str:
    columns = ["workload", "tool", "rule", "pairs of identical arms", "called different"]
    columns += [*(f"finds {percent} %" for percent in SLOWDOWNS_PERCENT), "measuring s an arm", "wall s an arm"]
    rows = [
        [
            *(name, rates.tool, rates.rule, str(rates.pairs), _whole(rates.false_alarms)),
            *(_whole(rates.detections[percent]) for percent in SLOWDOWNS_PERCENT),
            *(f"{rates.measured_s:.1f}", f"{rates.wall_s:.1f}"),
        ]
        for name, found in peers.items()
        for rates in found
    ]
    return _command("peers") + _table(columns, rows)


_NULL_TEXT = (
    "What each tool reads for an empty call and for `run` of a session of the `null` model, and the wall time of the "
    "whole measurement of the latter (of the empty call where the session was not asked for), by default settings. "
    "pyperf, pytest-benchmark and timeit time a loop of calls and divide; this harness reads the clock for every call."
)


def _null_table(nulls: Sequence[NullReading]) -> str:
    rows = [
        [
            null.tool,
            *(NONE if each is None else _time(each) for each in (null.empty_s, null.session_s)),
            f"{null.wall_s:.1f}",
        ]
        for null in nulls
    ]
    return _command("null") + _table(["tool", "empty call", "null session", "wall s"], rows)


# ------------------------------------------------------------------------------------------------------- parts


def _resampled(
    processes: Sequence[Process], rule_of: Callable[[Sequence[Process], int], Rule], resampling: Resampling
) -> dict[int, str]:
    found = {}
    for percent in SLOWDOWNS_PERCENT:
        rule = rule_of(processes, percent)
        pair = (slowed_arm(percent), "A1")
        drawn = analysis.resampled(processes, pair, rule, resampling.trials, resampling.seed)
        found[percent] = f" / {_percent(analysis.share(drawn, {verdicts.SLOWER}))}" if drawn else ""
    return found


def _rate(rate: stats.Estimate | None) -> str:
    if rate is None:
        return NONE
    count = round(rate.value * rate.replicates)
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}], {count} of {rate.replicates}"


def _percent(rate: stats.Estimate | None) -> str:
    return NONE if rate is None else f"{100 * rate.value:.1f} %"


def _whole(share: float) -> str:
    return NONE if math.isnan(share) else f"{100 * share:.0f} %"


def _ratio(ratio: stats.LogMean) -> str:
    interval = stats.estimate(ratio)
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _seconds(comparisons: Sequence[Comparison], name: str) -> str:
    if not comparisons:
        return NONE
    values = [getattr(comparison, name) for comparison in comparisons]
    return f"{fmean(values):.2f} ({np.quantile(values, 0.9):.2f})"


def _time(seconds: float) -> str:
    return f"{1e9 * seconds:.0f} ns" if seconds < 1e-5 else f"{1e6 * seconds:.1f} µs"


def _command(words: str) -> str:
    return f"`{SCRIPT} {words}`\n\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
