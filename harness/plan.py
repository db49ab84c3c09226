"""From a suite and a catalog to frozen trials: what will be run, before anything is."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.catalog import Catalog, Plugin, computes_nothing
from harness.contract import (
    RAGGED_SCENARIOS,
    Architecture,
    HarnessError,
    LayerSize,
    Model,
    Runtime,
    Task,
    Trainable,
    compute_dtype,
    needs_accelerator,
)
from harness.suite import Suite, override


@dataclass(frozen=True, slots=True)
class Variant:
    """A model on a runtime, written `model@runtime`, or `model@runtime[python]` in an interpreter of that name."""

    model: str
    runtime: str
    python: str = ""

    def __str__(self) -> str:
        return f"{self.model}@{self.runtime}" + (f"[{self.python}]" if self.python else "")


@dataclass(frozen=True, slots=True)
class Setting:
    """What trials that are timed side by side have in common: a task, the layer's size, and how it is run."""

    task: str
    size: LayerSize
    device: str
    dtype: str
    threads: int

    def __str__(self) -> str:
        size = f"H={self.size.hidden_size} L={self.size.num_layers}"
        return f"{self.task} {size} {self.dtype} {self.threads} thread{'' if self.threads == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One row to come.

    Attributes:
        id: unique in the run and safe as a file name.
        kind: `parity`, `accuracy`, `latency`, `load` or `calibration` (the baseline once more, beside itself).
        variant, task: what is tried on what.
        architecture: the variant's.
        size: the layer's size.
        device, dtype, threads: how it runs.
        compute_dtype: the format in which its runtime computes; `dtype`, or one with fewer bits.
        seed: of an accuracy trial, else None.
        trained_by: the variant whose training an accuracy trial is scored on; itself if it can train.
        scenario, batch, time: of a latency or load trial; batch is also an accuracy trial's training batch, and of a
            load trial the most that a call serves.
        caches: of a latency trial: `cold` if the caches are emptied before every call, else None.
        baseline: of a latency or load trial: the label of the variant it is compared with.
        twin: of a calibration trial: which of the baseline's twins, from 1; else 0.
    """

    id: str
    kind: str
    variant: Variant
    task: str
    architecture: str
    size: LayerSize
    device: str
    dtype: str
    compute_dtype: str
    threads: int
    seed: int | None = None
    trained_by: Variant | None = None
    scenario: str | None = None
    batch: int | None = None
    time: int | None = None
    caches: str | None = None
    baseline: str | None = None
    twin: int = 0

    @property
    def session(self) -> str:
        """What names the trial's session among those open in a worker; scenarios of a variant share one."""
        return f"{self.variant}#{self.twin}" if self.twin else str(self.variant)

    @property
    def setting(self) -> Setting:
        """Where and how it runs; what is timed side by side shares it."""
        return Setting(self.task, self.size, self.device, self.dtype, self.threads)

    @property
    def point(self) -> tuple[str | None, int | None, int | None]:
        """What of a setting it times: scenario, batch and time."""
        return self.scenario, self.batch, self.time

    def row(self, owners: Mapping[tuple[str, str], Plugin]) -> dict[str, Any]:
        """The trial as a row of the trials table, before its status is known.

        Args:
            owners: the plugins that give its model, its runtime and, if it has one, its task, by kind and name.
        """
        row = asdict(self) | asdict(self.size)
        row |= {"trial": self.id, "variant": str(self.variant), "model": self.variant.model}
        row |= {"runtime": self.variant.runtime, "python": self.variant.python or None}
        row |= {"trained_by": str(self.trained_by) if self.trained_by else None}
        names = {"": ("model", self.variant.model), "runtime_": ("runtime", self.variant.runtime)}
        for prefix, name in {**names, "task_": ("task", self.task)}.items():
            row[f"{prefix}distribution"] = owners[name].distribution
            row[f"{prefix}distribution_version"] = owners[name].version
        del row["id"], row["size"]
        return row


@dataclass(frozen=True)
class Plan:
    """Everything a run will do.

    Attributes:
        suite: the suite it came from.
        trials: one per row.
        tasks: the tasks in order.
        baselines: architecture to the variant its rows are compared with.
        floors: the architectures that have no weights: they compute nothing and show the harness's own overhead.
        yardsticks: architecture to the variant whose rounding error parity is held against, where one is installed.
    """

    suite: Suite
    trials: tuple[Trial, ...]
    tasks: tuple[str, ...]
    baselines: dict[str, Variant]
    floors: tuple[str, ...]
    yardsticks: dict[str, Variant]

    def of(self, kind: str, task: str | None = None) -> list[Trial]:
        """The trials of one kind, of one task if given."""
        return [trial for trial in self.trials if trial.kind == kind and task in (None, trial.task)]

    def variants(self) -> list[Variant]:
        """The variants, in order."""
        return list(dict.fromkeys(trial.variant for trial in self.trials))

    def settings(self) -> list[Setting]:
        """The settings, in order."""
        return list(dict.fromkeys(trial.setting for trial in self.trials))


def make_plan(suite: Suite, catalog: Catalog) -> Plan:
    """Multiply models by runtimes by tasks.

    Raises:
        HarnessError: a name is unknown or given twice, nothing is left to run, the plan is too large, or something that
            was asked for is for none of it.
    """
    pairs = _pairs(suite, catalog)
    if not catalog.names("task"):
        raise HarnessError("nothing to run: no task is installed; install rnn-harness-tasks")
    tasks = [catalog.task(name) for name in _pick(catalog, "task", suite.tasks)]
    trials: list[Trial] = []
    for task in tasks:
        for number, setting in enumerate(_settings(suite, task)):
            for model, runtime in pairs:
                for python in suite.pythons or [""]:
                    trials += _trials(suite, catalog, task, setting, model, runtime, python, is_scored=number == 0)
                if len(trials) > suite.most_trials:  # a grid may be too large to be written down
                    raise HarnessError(
                        f"the plan has more than {suite.most_trials} trials: choose fewer models, tasks or points of "
                        "the sweep, or raise most_trials (--most-trials)"
                    )
    _check_use(suite, trials)
    variants = [(model.architecture.name, Variant(model.name, runtime.name)) for model, runtime in pairs]
    architectures = list(dict.fromkeys(name for name, _ in variants))
    yardsticks = _yardsticks(catalog, pairs)
    for wanted in suite.baselines:
        model_name, _, runtime_name = wanted.partition("@")
        catalog.entry("model", model_name)
        catalog.entry("runtime", runtime_name)
    if len(suite.pythons) > 1 and suite.baselines:
        raise HarnessError("baselines: variants in several interpreters are compared with themselves in the first")
    baselines = {name: _baseline(name, suite, variants, yardsticks.get(name)) for name in architectures}
    floors = tuple(dict.fromkeys(m.architecture.name for m, _ in pairs if computes_nothing(m.architecture)))
    trials = _with_twins(_with_baselines(trials, baselines, suite), floors, suite.latency.twins)
    numbered = tuple(replace(trial, id=f"{number:04d}-{trial.kind}") for number, trial in enumerate(trials, start=1))
    return Plan(suite, numbered, tuple(task.name for task in tasks), baselines, floors, yardsticks)


def check_plan(catalog: Catalog, name: str, sizes: Sequence[LayerSize], device: str, dtype: str) -> Plan:
    """What a name means, to be checked: the variants as parity trials at these sizes, and the tasks.

    A name means everything that bears it: a variant, a model or else a runtime; a plugin with all that it gives, on and
    with all others; a task; an accelerator, of which nothing is here. A trial has no task; its place says how many
    layers there are.

    Raises:
        HarnessError: the name is unknown, or nothing accepts it.
    """
    model_name, at, runtime_name = name.partition("@")
    if not at and name in catalog.names("runtime") and name not in catalog.names("model"):
        model_name, runtime_name = "*", name
    suite = override(Suite(), device=device, dtype=dtype)
    given = [(catalog.model(model.name), catalog.runtime(runtime.name)) for model, runtime in catalog.variants(name)]
    plugins = {plugin.name for plugin in catalog.plugins}
    tasks = [e.name for e in catalog.entries if e.kind == "task" and name in (e.name, e.plugin.name)]
    is_known = tasks or name in plugins or name in catalog.names("accelerator")
    if name in (*catalog.names("model"), *catalog.names("runtime")) or not is_known:
        suite = override(suite, models=[model_name or ("*" if at else "")], runtimes=[runtime_name or "*"])
        given += _pairs(suite, catalog)
    pairs = {(model.name, runtime.name): (model, runtime) for model, runtime in given}
    trials = tuple(
        Trial(
            id=f"{number:04d}-parity",
            kind="parity",
            variant=Variant(model.name, runtime.name),
            task="1 layer" if size.num_layers == 1 else f"{size.num_layers} layers",
            architecture=model.architecture.name,
            size=size,
            device=suite.device,
            dtype=suite.dtype,
            compute_dtype=compute_dtype(runtime, suite.dtype),
            threads=suite.threads,
        )
        for number, (model, runtime, size) in enumerate(
            ((m, r, s) for m, r in pairs.values() for s in ([m.size] if m.size else sizes)), start=1
        )
    )
    return Plan(suite, trials, tuple(dict.fromkeys(tasks)), {}, (), {})


def layer_size(suite: Suite, task: Task) -> LayerSize:
    """The layer a task is run with: its recipe's, unless the suite overrides it."""
    return LayerSize(
        task.input_size,
        suite.layer.hidden_size or task.recipe.hidden_size,
        suite.layer.num_layers or task.recipe.num_layers,
    )


def _with_baselines(trials: Sequence[Trial], baselines: dict[str, Variant], suite: Suite) -> list[Trial]:
    """Who each latency is compared with: its architecture's baseline, or among interpreters itself in the first."""
    first = next(iter(suite.pythons), "")

    def base(trial: Trial) -> Variant:
        own = trial.variant if len(suite.pythons) > 1 else baselines[trial.architecture]
        return replace(own, python=first)

    return [replace(t, baseline=str(base(t))) if t.kind in ("latency", "load") else t for t in trials]


def _with_twins(trials: list[Trial], floors: Sequence[str], twins: int) -> list[Trial]:
    """Add twins of each task's first baseline that computes something, in its first setting, scenario and shape."""
    found: dict[str, Trial] = {}
    for trial in trials:
        if trial.kind == "latency" and trial.baseline == str(trial.variant) and trial.architecture not in floors:
            found.setdefault(trial.task, trial)
    copies = [replace(t, kind="calibration", twin=number) for t in found.values() for number in range(1, twins + 1)]
    return [*trials, *copies]


def _settings(suite: Suite, task: Task) -> list[Setting]:
    """Every setting of a task: the suite's own values, or every combination of those that it sweeps over."""
    plain, sweep = layer_size(suite, task), suite.sweep
    grid = itertools.product(
        sweep.hidden_size or [plain.hidden_size],
        sweep.num_layers or [plain.num_layers],
        sweep.dtype or [suite.dtype],
        sweep.threads or [suite.threads],
    )
    return list(
        dict.fromkeys(
            Setting(task.name, LayerSize(task.input_size, hidden, layers), suite.device, dtype, threads)
            for hidden, layers, dtype, threads in grid
        )
    )


def _trials(
    suite: Suite,
    catalog: Catalog,
    task: Task,
    setting: Setting,
    model: Model,
    runtime: Runtime,
    python: str,
    is_scored: bool,
) -> list[Trial]:
    base = Trial(
        id="",
        kind="parity",
        variant=Variant(model.name, runtime.name, python),
        task=task.name,
        architecture=model.architecture.name,
        size=setting.size,
        device=setting.device,
        dtype=setting.dtype,
        compute_dtype=compute_dtype(runtime, setting.dtype),
        threads=setting.threads,
    )
    trainer = _trainer(catalog, model, runtime)
    if trainer:
        trainer = replace(trainer, python=python)
    trials = [base]
    if is_scored and not computes_nothing(model.architecture):
        trials += [
            replace(base, kind="accuracy", seed=seed, trained_by=trainer, batch=task.recipe.batch_size)
            for seed in range(suite.seeds if model.architecture.weights is None else min(1, suite.seeds))
        ]
    for scenario in dict.fromkeys(suite.latency.scenarios):
        if _applies(scenario, task, model, runtime):
            for batch, time in _shapes(suite, task, scenario):
                point = replace(base, kind="latency", scenario=scenario, batch=batch, time=time)
                trials.append(replace(point, caches="cold" if suite.latency.cold_cache else None))
    return trials + _loads(suite, task, base, model)


def _loads(suite: Suite, task: Task, base: Trial, model: Model) -> list[Trial]:
    """The load trials of a variant; none of what computes nothing: its highest load would be the harness's own."""
    if computes_nothing(model.architecture):
        return []
    offered = {"server": (suite.server.most_batch, task.time), "stream": (1, suite.stream.chunk_steps)}
    return [
        replace(base, kind="load", scenario=name, batch=offered[name][0], time=offered[name][1])
        for name in dict.fromkeys(suite.loads)
        if name != "stream" or _can_stream(model)
    ]


def _applies(scenario: str, task: Task, model: Model, runtime: Runtime) -> bool:
    """Whether a scenario is one of a variant on a task.

    A backward direction that is not told the lengths begins in the padding, so for it only `packed` is right.
    """
    if scenario == "training-step":
        return isinstance(runtime, Trainable)
    if scenario in RAGGED_SCENARIOS:
        return task.ragged and (scenario == "packed" or model.architecture.directions == 1)
    return scenario != "stream" or _can_stream(model)


def _can_stream(model: Model) -> bool:
    """Whether it can say anything before a sequence ends; a backward direction cannot."""
    return model.architecture.directions == 1


def _check_use(suite: Suite, trials: Sequence[Trial]) -> None:
    """Refuse scenarios of which nothing here has any, a sweep that moves nothing, and caches that stay warm."""
    planned, wanted = {trial.scenario for trial in trials}, [*suite.latency.scenarios, *suite.loads]
    if wanted and not planned & set(wanted):
        names = f"{', '.join(dict.fromkeys(wanted))} {'are' if len(wanted) > 1 else 'is'}"
        raise HarnessError(
            f"nothing to time: {names} for none of these variants on these tasks; choose others, or leave latency out "
            "with scenarios = []"
        )
    if suite.latency.cold_cache and not any(trial.caches for trial in trials):
        raise HarnessError(
            "--cold-cache: no latency is measured here, and loads find the caches as they are; leave it out"
        )
    if any(trial.caches and trial.device == "cpu" and trial.threads > 1 for trial in trials):
        raise HarnessError(
            "--cold-cache: on the cpu the caches of one core can be emptied; leave it out, or --threads 1"
        )
    wide, long = {"offline", *RAGGED_SCENARIOS}, {"offline", "single-stream"}
    for key, points, meant in (("batch", suite.sweep.batch, wide), ("time", suite.sweep.time, long)):
        if points and not meant & planned:
            raise HarnessError(
                f"--sweep {key}: none of the scenarios here has another; add {' or '.join(sorted(meant))}"
            )


def _shapes(suite: Suite, task: Task, scenario: str) -> list[tuple[int, int]]:
    """The shapes (batch, time) of a scenario; the first is the one that summaries show."""
    if scenario == "training-step":
        return [(task.recipe.batch_size, task.time)]
    if scenario == "stream":
        return [(1, suite.stream.chunk_steps)]
    batches = [1] if scenario == "single-stream" else suite.sweep.batch or [suite.latency.offline_batch]
    times = suite.sweep.time if suite.sweep.time and scenario not in RAGGED_SCENARIOS else [task.time]
    return list(dict.fromkeys(itertools.product(batches, times)))


def _pairs(suite: Suite, catalog: Catalog) -> list[tuple[Model, Runtime]]:
    """The models and runtimes that fit each other."""
    models = [catalog.model(name) for name in _pick(catalog, "model", suite.models)]
    runtimes = [
        runtime
        for runtime in map(catalog.runtime, _pick(catalog, "runtime", suite.runtimes))
        if suite.device != "cpu" or not needs_accelerator(runtime) or runtime.name in suite.runtimes
    ]
    _check_architectures(models)
    pairs = [(model, runtime) for model in models for runtime in runtimes if model.framework in runtime.frameworks]
    if not runtimes:
        raise HarnessError("nothing to run: these runtimes need an accelerator; name one with --device")
    if not pairs:
        raise HarnessError(
            f"nothing to run: none of the runtimes {', '.join(r.name for r in runtimes)} "
            f"accepts any of the models {', '.join(m.name for m in models)}"
        )
    return pairs


def _pick(catalog: Catalog, kind: str, patterns: list[str]) -> list[str]:
    """The names that match, in the catalog's order for a pattern, in the user's order otherwise.

    `!` before a name or pattern leaves out what it means; with nothing but such, everything else is meant.
    """
    left_out = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    for name in left_out:
        if not set(name) & set("*?"):
            catalog.entry(kind, name)  # or a misspelt name would leave out nothing
    names: list[str] = []
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    for pattern in wanted or ["*"] * bool(left_out):
        if set(pattern) & set("*?"):
            found = fnmatch.filter(catalog.names(kind), pattern)
            if not found and pattern != "*":
                raise HarnessError(
                    f"no {kind} matches '{pattern}'; there are: {', '.join(catalog.names(kind)) or 'none'}"
                )
            names += found
        else:
            names.append(catalog.entry(kind, pattern).name)
    names = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in left_out)]
    if not names:
        raise HarnessError(f"nothing to run: no {kind} is installed or chosen; `harness list` shows what there is")
    return list(dict.fromkeys(names))


def _trainer(catalog: Catalog, model: Model, runtime: Runtime) -> Variant | None:
    """Who trains the weights a variant is scored on: itself, its model elsewhere, or a sibling of its architecture."""
    if isinstance(runtime, Trainable):
        return Variant(model.name, runtime.name)
    installed = [catalog.model(name) for name in _unambiguous(catalog, "model")]
    siblings = [m for m in installed if m.architecture == model.architecture]
    siblings.sort(key=lambda m: (m.name != model.name, not m.yardstick))
    for sibling in siblings:
        for name in _unambiguous(catalog, "runtime"):
            other = catalog.runtime(name)
            if sibling.framework in other.frameworks and isinstance(other, Trainable):
                return Variant(sibling.name, other.name)
    return None


def _yardsticks(catalog: Catalog, pairs: Sequence[tuple[Model, Runtime]]) -> dict[str, Variant]:
    architectures = {model.architecture.name: model.architecture for model, _ in pairs}
    found = {name: _yardstick(architecture, catalog) for name, architecture in architectures.items()}
    return {name: variant for name, variant in found.items() if variant is not None}


def _yardstick(architecture: Architecture, catalog: Catalog) -> Variant | None:
    """The yardstick model of an architecture, on the runtime that trains it (its framework's own)."""
    for name in _unambiguous(catalog, "model"):
        model = catalog.model(name)
        if model.architecture == architecture and model.yardstick:
            for runtime_name in _unambiguous(catalog, "runtime"):
                runtime = catalog.runtime(runtime_name)
                if model.framework in runtime.frameworks and isinstance(runtime, Trainable):
                    return Variant(model.name, runtime.name)
    return None


def _unambiguous(catalog: Catalog, kind: str) -> list[str]:
    """The names of one kind that exactly one plugin gives."""
    given = [entry.name for entry in catalog.entries if entry.kind == kind]
    return [name for name in catalog.names(kind) if given.count(name) == 1]


def _baseline(
    architecture: str, suite: Suite, variants: list[tuple[str, Variant]], yardstick: Variant | None
) -> Variant:
    """The first of the suite's baselines that has the architecture; else the yardstick; else the first variant."""
    own = [variant for name, variant in variants if name == architecture]
    wanted = [*suite.baselines, str(yardstick)]
    return next((variant for name in wanted for variant in own if str(variant) == name), own[0])


def _check_architectures(models: list[Model]) -> None:
    seen: dict[str, Model] = {}
    for model in models:
        first = seen.setdefault(model.architecture.name, model)
        if first.architecture != model.architecture:
            raise HarnessError(
                f"models '{first.name}' and '{model.name}' mean different things by architecture "
                f"'{model.architecture.name}'; one of them must rename it"
            )
