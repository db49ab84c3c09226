"""Discovery: which plugins are installed, what each gives, and what failed to load and why."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import importlib.util
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from itertools import islice
from typing import Any, get_args

import pluggy

from harness import hookspecs
from harness.contract import (
    COMPUTE_DTYPES,
    CONTRACT_VERSION,
    MOST_NAME,
    MOST_REASON,
    NAME,
    Accelerator,
    Architecture,
    HarnessError,
    LayerSize,
    Model,
    Recipe,
    ReportFormat,
    Runtime,
    Task,
    TaskKind,
    Trainable,
    one_line,
    printable,
)

OF_A_RUN = ("model", "runtime", "task")  # what is planned
KINDS = (*OF_A_RUN, "report format", "accelerator")  # of what a plugin gives
PLUGINS_VARIABLE = "HARNESS_PLUGINS"
OWN_MODEL_VARIABLE, OWN_MODEL = "HARNESS_OWN_MODEL", "own-model"  # see `harness.own_model`; its plugin's name
CONTRACT_ATTRIBUTE = "harness_contract"  # of a plugin's module: the version of the contract it is written for
FIRST_CONTRACT = 1  # what is meant by a plugin that does not say
MOST_ENTRIES = 1000  # of one plugin; a hook may be a generator that never ends
LARGEST = 2**31 - 1  # sizes that any array library can count with
OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: its entry point's name, the distribution it comes from, and why it failed, if it did."""

    name: str
    distribution: str
    version: str
    failure: str | None = None


@dataclass(frozen=True)
class Entry:
    """One thing a plugin gives: a `Model`, `Runtime`, `Task`, `ReportFormat` or `Accelerator`."""

    kind: str
    name: str
    value: Any
    plugin: Plugin


@dataclass(frozen=True)
class Catalog:
    """Everything the installed plugins give. Names are checked only when they are looked up, so that one clash or
    one broken plugin costs nothing to a run that did not ask for it."""

    plugins: tuple[Plugin, ...]
    entries: tuple[Entry, ...]

    def names(self, kind: str) -> list[str]:
        """The names of one kind, in the order their plugins were found, without repeats."""
        return list(dict.fromkeys(entry.name for entry in self.entries if entry.kind == kind))

    def entry(self, kind: str, name: str) -> Entry:
        """Look a name up.

        Raises:
            HarnessError: nobody gives it (near names and broken plugins are named), or two plugins do (both named).
        """
        found = [entry for entry in self.entries if entry.kind == kind and entry.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"'{entry.plugin.distribution}'" for entry in found)
            raise HarnessError(f"{kind} '{name}' is provided by both {owners}; uninstall one")
        near = hint(name, self.names(kind))
        broken = [plugin for plugin in self.plugins if plugin.failure]
        if broken:
            near += "; failed to load: " + ", ".join(f"'{p.name}' ({p.failure})" for p in broken)
        raise HarnessError(f"no {kind} is called '{printable(name)}'; {near}")

    def model(self, name: str) -> Model:
        """The model of that name; raises HarnessError as `entry` does."""
        value: Model = self.entry("model", name).value
        return value

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name; raises HarnessError as `entry` does."""
        value: Runtime = self.entry("runtime", name).value
        return value

    def variants(self, plugin: str) -> list[tuple[Model, Runtime]]:
        """Every model of a plugin on every runtime that accepts it, and every runtime of it with every such model."""
        models, runtimes = ([e for e in self.entries if e.kind == kind] for kind in ("model", "runtime"))
        return [
            (model.value, runtime.value)
            for model in models
            for runtime in runtimes
            if model.value.framework in runtime.value.frameworks and plugin in (model.plugin.name, runtime.plugin.name)
        ]

    def task(self, name: str) -> Task:
        """The task of that name; raises HarnessError as `entry` does."""
        value: Task = self.entry("task", name).value
        return value

    def accelerator(self, name: str) -> Accelerator:
        """The accelerator of that name; raises HarnessError as `entry` does."""
        value: Accelerator = self.entry("accelerator", name).value
        return value

    def report_format(self, name: str) -> ReportFormat:
        """The report format of that name; raises HarnessError as `entry` does."""
        value: ReportFormat = self.entry("report format", name).value
        return value


def discover(only: Collection[str] | None = None) -> Catalog:
    """Load the installed plugins into this process, one by one; one that fails is kept with its reason and harms no
    other, unless it ends the process.

    Args:
        only: the names of those to load; no other is imported. None stands for the names in the environment variable
            `HARNESS_PLUGINS`, with commas between, of which any may be missing here; without it for all.

    Raises:
        HarnessError: no plugin has one of the names in `only`.
    """
    installed = installed_plugins()
    if only is not None:
        check_names(only, [plugin.name for plugin, _ in installed])
    chosen = chosen_names(only)
    loaded = [load_plugin(plugin, point) for plugin, point in installed if chosen is None or plugin.name in chosen]
    return Catalog(tuple(plugin for plugin, _ in loaded), tuple(entry for _, given in loaded for entry in given))


def chosen_names(only: Collection[str] | None) -> frozenset[str] | None:
    """These names, or else those in `HARNESS_PLUGINS`; None if all plugins are meant."""
    if only is not None:
        return frozenset(only)
    named = os.environ.get(PLUGINS_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in named if name.strip()) or None


def check_names(only: Iterable[str], installed: Collection[str]) -> None:
    """Refuse the name of a plugin that is not installed.

    Raises:
        HarnessError: naming near names, or all there are.
    """
    for name in only:
        if name not in installed:
            raise HarnessError(f"no plugin is called '{printable(name)}'; {hint(name, list(dict.fromkeys(installed)))}")


def installed_plugins() -> list[tuple[Plugin, EntryPoint]]:
    """Every installed plugin and its entry point, by name, from their metadata alone: none is imported."""
    try:
        found = list(importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP))
    except Exception:  # one package's unreadable metadata must not hide all others
        found = []
        for distribution in importlib.metadata.distributions():
            with contextlib.suppress(Exception):
                found += distribution.entry_points.select(group=hookspecs.ENTRY_POINT_GROUP)
    points = sorted(set(found), key=lambda point: (point.name, point.value))
    return [*((_identity(point), point) for point in points), *_own_model()]


def _own_model() -> list[tuple[Plugin, EntryPoint]]:
    """The plugin that stands for a command's `--model`, in that command's processes."""
    if not (text := os.environ.get(OWN_MODEL_VARIABLE)):
        return []
    facts = json.loads(text)
    point = EntryPoint(OWN_MODEL, "harness.own_model", hookspecs.ENTRY_POINT_GROUP)
    return [(Plugin(OWN_MODEL, facts["distribution"], facts["version"]), point)]


def _identity(point: EntryPoint) -> Plugin:
    """Whose entry point it is, as far as the metadata can be read."""
    metadata: Mapping[str, Any] = {}
    with contextlib.suppress(Exception):  # missing, or not text
        metadata = point.dist.metadata.json if point.dist else {}
    owner, version = metadata.get("name") or point.value, metadata.get("version") or "unknown"
    return Plugin(printable(point.name), printable(owner), printable(version))


def load_plugin(plugin: Plugin, point: EntryPoint) -> tuple[Plugin, list[Entry]]:
    """Import a plugin and ask its hooks; what cannot be used is a `failure` and gives nothing."""
    pm = pluggy.PluginManager("harness")  # one each, so that a plugin is judged alone
    pm.add_hookspecs(hookspecs)
    try:
        if "," in plugin.name:
            raise HarnessError("its entry point's name has a comma; plugins are chosen by name, with commas between")
        module = point.load()
        _check_contract(getattr(module, CONTRACT_ATTRIBUTE, FIRST_CONTRACT), plugin)
        pm.register(module, name=point.name)
        pm.check_pending()  # a misspelt hook would otherwise stay silent
        given: list[Entry] = []
        for kind in KINDS:
            for values in getattr(pm.hook, f"harness_{kind.replace(' ', '_')}s")():
                given += [make_entry(kind, value, plugin) for value in islice(values, MOST_ENTRIES + 1)]
                if len(given) > MOST_ENTRIES:
                    kinds = ", ".join(f"{kind}s" for kind in KINDS[:-1])
                    raise HarnessError(f"it gives more than {MOST_ENTRIES} {kinds} and {KINDS[-1]}s")
        if not given:
            raise HarnessError(f"it gives no {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing a stranger's module may raise anything
        return replace(plugin, failure=_reason(error, plugin, point)), []
    return plugin, given


def _check_contract(version: Any, plugin: Plugin) -> None:
    """Refuse a plugin that is written for another version of the contract, before any of its hooks is called."""
    if type(version) is not int:
        raise HarnessError(f"its {CONTRACT_ATTRIBUTE} must be a whole number, such as {CONTRACT_VERSION}")
    if version != CONTRACT_VERSION:
        step = "upgrade rnn-harness, or install" if version > CONTRACT_VERSION else "install"
        raise HarnessError(
            f"it is written for version {printable(version)} of the plugin contract, and this rnn-harness has version "
            f"{CONTRACT_VERSION}; {step} a release of '{plugin.distribution}' for version {CONTRACT_VERSION}"
        )


def _reason(error: BaseException, plugin: Plugin, point: EntryPoint) -> str:
    """Why a plugin could not be loaded, with the next step where something else should be installed."""
    with contextlib.suppress(Exception):  # a stranger's exception may have anything for a name
        top = error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else ""
        if not isinstance(error, ModuleNotFoundError) and top == __name__.partition(".")[0]:
            return f"{one_line(error)}; is it written for another plugin contract than version {CONTRACT_VERSION}?"
        if isinstance(error, ModuleNotFoundError) and top and not importlib.util.find_spec(top):
            wanted = _not_installed(top, point)
            step = f"pip install {' '.join(wanted)}" if wanted else "its package asks for nothing of that name"
            return printable(f"'{plugin.distribution}' needs '{top}', which is not installed: {step}", MOST_REASON)
    return one_line(error)


def _not_installed(module: str, point: EntryPoint) -> list[str]:
    """What a plugin's package asks for that is not installed: what is called as the module is, or else all of it."""
    missing: dict[str, bool] = {}
    for requirement in (point.dist.requires if point.dist else None) or ():
        found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
        if found and not is_installed(found[0]):
            missing[found[0]] = ";" in requirement  # only under a condition, such as an extra
    same = [name for name in missing if re.sub(r"[-_.]+", "_", name).lower() == module.lower()]
    return same or [name for name, is_conditional in missing.items() if not is_conditional]


def is_installed(distribution: str) -> bool:
    """Whether a package of that name is there, by the metadata."""
    with contextlib.suppress(Exception):  # it is not, or cannot be read
        importlib.metadata.distribution(distribution)
        return True
    return False


def make_entry(kind: str, value: Any, plugin: Plugin) -> Entry:
    """What a plugin gives, checked.

    Raises:
        HarnessError: it is not what its kind needs; one line that says what is.
    """
    checks = {"model": _check_model, "runtime": _check_runtime, "task": _check_task, "report format": _check_format}
    checks["accelerator"] = _check_accelerator
    checks[kind](value)
    return Entry(kind, value.name, value, plugin)


def computes_nothing(architecture: Architecture) -> bool:
    """Whether an architecture has no weights at all; one whose shapes cannot be told will fail parity and say why."""
    try:
        return len(architecture.weight_shapes(LayerSize(1, 1))) == 0
    except Exception:  # a stranger's code
        return False


def _check_model(model: Any) -> None:
    _check_type(model, Model)
    _check_name("model name", model.name)
    who, architecture = f"model '{model.name}'", model.architecture
    _require(isinstance(architecture, Architecture), who, "architecture must be a harness.Architecture")
    _check_name(f"{who}: architecture name", architecture.name)
    _require(type(architecture.directions) is int, who, "architecture's directions must be 1 or 2")
    _require(architecture.directions in (1, 2), who, "architecture's directions must be 1 or 2")
    for name in ("weight_shapes", "reference"):
        _require(callable(getattr(architecture, name)), who, f"architecture's {name} must be callable")
    names = architecture.state_names
    _require(isinstance(names, tuple) and bool(names), who, "architecture's state_names must be a tuple of names")
    for name in names:
        _check_name(f"{who}: state name", name)
    _check_name(f"{who}: framework", model.framework)
    for name in ("build", "to_parameters", "from_parameters"):
        _require(callable(getattr(model, name)), who, f"{name} must be callable")
    for name in ("takes_lengths", "yardstick"):
        _require(isinstance(getattr(model, name), bool), who, f"{name} must be True or False")
    _require(isinstance(model.description, str), who, "description must be a text")
    _require(
        architecture.weights is None or callable(architecture.weights), who, "architecture's weights must be callable"
    )
    _require(model.size is None or isinstance(model.size, LayerSize), who, "size must be a harness.LayerSize")
    for name in ("input_size", "hidden_size", "num_layers") if model.size else ():
        _require_whole(getattr(model.size, name), who, f"size's {name}")


def _check_runtime(runtime: Any) -> None:
    if not all(hasattr(runtime, part) for part in ("name", "frameworks", "description", "open")):
        kind = printable(type(runtime).__name__)
        raise HarnessError(f"harness_runtimes gave a {kind} that lacks name, frameworks, description or open")
    _check_name("runtime name", runtime.name)
    who = f"runtime '{runtime.name}'"
    _require(isinstance(runtime.frameworks, Set), who, "frameworks must be a set of names")
    for name in runtime.frameworks:
        _check_name(f"{who}: framework", name)
    _require(isinstance(runtime.description, str), who, "description must be a text")
    reduced = getattr(runtime, "compute_dtype", None)
    _require(
        reduced is None or (isinstance(reduced, str) and reduced in COMPUTE_DTYPES),
        who,
        f"compute_dtype must be one of {', '.join(COMPUTE_DTYPES)}, or not be there",
    )
    _require(
        reduced is None or not isinstance(runtime, Trainable),
        who,
        "compute_dtype is of a runtime that does not train, for accuracy is held against a trainer's",
    )
    needs = getattr(runtime, "needs_accelerator", False)
    _require(isinstance(needs, bool), who, "needs_accelerator must be True or False, or not be there")
    for name in ("open", *(("open_trainer", "initial_weights") if isinstance(runtime, Trainable) else ())):
        _require(callable(getattr(runtime, name)), who, f"{name} must be callable")


def _check_task(task: Any) -> None:
    _check_type(task, Task)
    _check_name("task name", task.name)
    who, recipe = f"task '{task.name}'", task.recipe
    _require(task.kind in get_args(TaskKind), who, f"kind must be {' or '.join(get_args(TaskKind))}")
    for name in ("input_size", "time", "outputs"):
        _require_whole(getattr(task, name), who, name)
    _require(callable(task.load), who, "load must be callable")
    _require(isinstance(task.description, str), who, "description must be a text")
    _require(isinstance(task.ragged, bool), who, "ragged must be True or False")
    _require(isinstance(recipe, Recipe), who, "recipe must be a harness.Recipe")
    for name in ("hidden_size", "num_layers", "batch_size", "epochs"):
        _require_whole(getattr(recipe, name), who, f"recipe's {name}")
    _require(recipe.optimizer in OPTIMIZERS, who, f"recipe's optimizer must be {' or '.join(OPTIMIZERS)}")
    for name in ("learning_rate", "clip_norm"):
        value = getattr(recipe, name)
        is_left_out = value is None and name != "learning_rate"
        _require(is_left_out or (_is_finite(value) and value > 0), who, f"recipe's {name} must be finite and above 0")
    bias = recipe.forget_bias
    _require(bias is None or _is_finite(bias), who, "recipe's forget_bias must be finite")


def _check_format(report_format: Any) -> None:
    _check_type(report_format, ReportFormat)
    _check_simple("report format", report_format, "write")


def _check_accelerator(accelerator: Any) -> None:
    _check_type(accelerator, Accelerator)
    _check_simple("accelerator", accelerator, "open")


def _check_simple(kind: str, value: Any, function: str) -> None:
    """What has a name, a description and one function."""
    _check_name(f"{kind} name", value.name)
    who = f"{kind} '{value.name}'"
    _require(isinstance(value.description, str), who, "description must be a text")
    _require(callable(getattr(value, function)), who, f"{function} must be callable")


def _check_type(value: Any, expected: type) -> None:
    if not isinstance(value, expected):
        kind = printable(type(value).__name__)
        hook = f"harness_{'_'.join(re.findall('[A-Z][a-z]*', expected.__name__)).lower()}s"
        raise HarnessError(f"{hook} gave a {kind}; it must give {expected.__name__} records")


def _check_name(what: str, name: Any) -> None:
    if not (isinstance(name, str) and re.fullmatch(NAME, name)):
        shown = printable(repr(name[:MOST_NAME]) if isinstance(name, str) else name)
        raise HarnessError(
            f"{what} {shown} must be made of a-z, 0-9, '-', '.' and '_', begin with a letter or digit and have at most "
            "64 characters"
        )


def _require_whole(value: Any, who: str, name: str) -> None:
    _require(type(value) is int and 1 <= value <= LARGEST, who, f"{name} must be a whole number from 1 to {LARGEST}")


def _require(is_met: bool, who: str, what: str) -> None:
    if not is_met:
        raise HarnessError(f"{who}: its {what}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def hint(name: str, names: list[str]) -> str:
    """What may be meant by a name that is none of these: near ones, or else all there are."""
    near = difflib.get_close_matches(name.lower(), names, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(names) or 'none'}"
