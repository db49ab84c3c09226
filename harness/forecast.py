"""What a plan holds and about how long it will take, said before it is run."""

from __future__ import annotations

from collections import Counter

from harness.plan import Plan, Setting, Trial

# What the published runs took, in seconds (tests/test_forecast.py holds them against it); a plan knows no latencies.
PARITY_SECONDS = 5.0  # of one variant: a fresh worker, its framework imported, the grid
START_SECONDS = 3.0  # of one worker that times
POINT_SECONDS = 0.12  # of one point in one instance: opening, checking twice, and what is no measuring
MEASURED_SHARE = 3.0  # of `latency.seconds`: a warm-up and two boundaries, each about as long
COLD_SECONDS = 3.0  # of one point in one instance, where caches of some 250 MiB are emptied before every call
PROBES = 8.0  # of a worker that looks for its limit, some of them overloaded and so longer
CONFIRMATIONS = 2.0  # of a server's worker after that


def latency_seconds(plan: Plan) -> float:
    """About how long the timing of a plan takes, if it goes on to the last slice or its budget is used up.

    Calls that are done before `latency.seconds` are over make it shorter, and compilers longer.
    """
    settings: dict[Setting, list[Trial]] = {}
    for trial in plan.trials:
        if trial.kind in ("latency", "calibration"):
            settings.setdefault(trial.setting, []).append(trial)
    latency = plan.suite.latency
    point = POINT_SECONDS + MEASURED_SHARE * latency.seconds + COLD_SECONDS * latency.cold_cache
    total = 0.0
    for trials in settings.values():
        workers = {(trial.variant.runtime, trial.variant.python) for trial in trials}
        points = latency.instances * len(trials)
        slice_seconds = len(workers) * START_SECONDS + points * point
        total += min(latency.most_slices * slice_seconds, latency.budget_seconds + slice_seconds)
    return total


def load_seconds(plan: Plan) -> float:
    """About how long the loads of a plan take; slow variants, of which few requests come a second, take longer."""
    suite = plan.suite
    server = PROBES * suite.server.probe_seconds + CONFIRMATIONS * suite.server.confirmation_seconds
    probes = {"server": server, "stream": PROBES * suite.stream.probe_seconds}
    workers = [START_SECONDS + probes[trial.scenario or ""] for trial in plan.of("load")]
    return suite.latency.slices * sum(workers)


def forecast(plan: Plan) -> str:
    """One line: how many trials, about how long, and what that leaves out."""
    kinds = Counter(trial.kind for trial in plan.trials)
    minutes = (PARITY_SECONDS * kinds["parity"] + latency_seconds(plan) + load_seconds(plan)) / 60
    time = f"about {minutes:.0f} min" if minutes >= 1.5 else "about a minute"
    trainings = {(t.trained_by, t.task, t.seed) for t in plan.of("accuracy") if t.trained_by}
    besides = f" and {len(trainings)} training{'s' * (len(trainings) > 1)}" if trainings else ""
    count = len(plan.trials)
    return f"{count} trial{'s' * (count > 1)}, {time}{besides}"


def unused(plan: Plan) -> list[str]:
    """A sentence for every scenario that was asked for and that nothing in the plan has."""
    planned = {(trial.kind, trial.scenario) for trial in plan.trials}
    wanted = [("latency", name) for name in plan.suite.latency.scenarios] + [
        ("load", name) for name in plan.suite.loads
    ]
    return [
        f"{'load' if kind == 'load' else 'scenario'} '{name}' is for none of these variants on these tasks"
        for kind, name in dict.fromkeys(wanted)
        if (kind, name) not in planned
    ]


def plan_lines(plan: Plan) -> list[str]:
    """The plan in aligned columns: one line a trial, and the forecast last."""
    rows = [("trial", "variant", "setting", "what")]
    rows += [(trial.id, str(trial.variant), str(trial.setting), _what(trial)) for trial in plan.trials]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(map(str.ljust, row, [*widths, 0])) for row in rows]
    return [*lines, "", *unused(plan), forecast(plan)]


def _what(trial: Trial) -> str:
    if trial.kind == "accuracy":
        return f"seed {trial.seed}, trained by {trial.trained_by or 'nobody'}"
    if trial.scenario is None:
        return "the grid and every shape that is timed"
    twin = f", twin {trial.twin}" if trial.twin else ""
    caches = f", {trial.caches} caches" if trial.caches else ""
    return f"{trial.scenario}, batch {trial.batch}, time {trial.time}{caches}{twin}"
