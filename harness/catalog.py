"""Discovery: which plugins are installed, what each gives, and what failed to load and why."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, get_args

import pluggy

from harness import hookspecs
from harness.contract import Architecture, HarnessError, Model, Recipe, Runtime, Task, TaskKind, one_line

KINDS = ("model", "runtime", "task")


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: its entry point's name, the distribution it comes from, and why it failed, if it did."""

    name: str
    distribution: str
    version: str
    failure: str | None = None


@dataclass(frozen=True)
class Entry:
    """One thing a plugin gives: a `Model`, `Runtime` or `Task`."""

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
        near = difflib.get_close_matches(name.lower(), self.names(kind), n=3)
        hint = (
            f"; did you mean {' or '.join(repr(n) for n in near)}?"
            if near
            else f"; there are: {', '.join(self.names(kind)) or 'none'}"
        )
        broken = [plugin for plugin in self.plugins if plugin.failure]
        if broken:
            hint += "; failed to load: " + ", ".join(f"'{p.name}' ({p.failure})" for p in broken)
        raise HarnessError(f"no {kind} is called '{name}'{hint}")

    def model(self, name: str) -> Model:
        """The model of that name; raises HarnessError as `entry` does."""
        value: Model = self.entry("model", name).value
        return value

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name; raises HarnessError as `entry` does."""
        value: Runtime = self.entry("runtime", name).value
        return value

    def task(self, name: str) -> Task:
        """The task of that name; raises HarnessError as `entry` does."""
        value: Task = self.entry("task", name).value
        return value


def discover(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> Catalog:
    """Load every installed plugin, one by one; a plugin that fails is kept with its reason and harms no other."""
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP)
    plugins: list[Plugin] = []
    entries: list[Entry] = []
    for point in sorted(set(entry_points), key=lambda p: (p.name, p.value)):
        plugin, given = _load(point)
        plugins.append(plugin)
        entries.extend(given)
    return Catalog(tuple(plugins), tuple(entries))


def _load(point: importlib.metadata.EntryPoint) -> tuple[Plugin, list[Entry]]:
    metadata = point.dist.metadata.json if point.dist else {}
    distribution = str(metadata.get("name", point.value))
    version = str(metadata.get("version", "unknown"))
    plugin = Plugin(point.name, distribution, version)
    pm = pluggy.PluginManager("harness")  # one each, so that a plugin is judged alone
    pm.add_hookspecs(hookspecs)
    try:
        pm.register(point.load(), name=point.name)
        pm.check_pending()  # a misspelt hook would otherwise stay silent
        given = [
            _entry(kind, value, plugin)
            for kind in KINDS
            for values in getattr(pm.hook, f"harness_{kind}s")()
            for value in values
        ]
        if not given:
            raise HarnessError("it gives no model, runtime or task")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing a stranger's module may raise anything
        return Plugin(point.name, distribution, version, failure=one_line(error)), []
    return plugin, given


def _entry(kind: str, value: Any, plugin: Plugin) -> Entry:
    expected = {"model": Model, "task": Task}.get(kind)
    if expected and not isinstance(value, expected):
        raise HarnessError(f"harness_{kind}s gave a {type(value).__name__}; it must give {expected.__name__} records")
    if kind == "runtime" and not all(hasattr(value, part) for part in ("name", "frameworks", "description", "open")):
        raise HarnessError(
            f"harness_runtimes gave a {type(value).__name__} that lacks name, frameworks, description or open"
        )
    if kind == "model" and not isinstance(value.architecture, Architecture):
        raise HarnessError(f"model {value.name!r}: its architecture must be a harness.Architecture")
    if kind == "runtime" and not (
        isinstance(value.frameworks, Set) and all(isinstance(f, str) for f in value.frameworks)
    ):
        raise HarnessError(f"runtime {value.name!r}: its frameworks must be a set of names")
    if kind == "task" and not isinstance(value.recipe, Recipe):
        raise HarnessError(f"task {value.name!r}: its recipe must be a harness.Recipe")
    if kind == "task" and value.kind not in get_args(TaskKind):
        raise HarnessError(f"task {value.name!r}: its kind must be {' or '.join(get_args(TaskKind))}")
    name = value.name
    if not isinstance(name, str) or not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-._"):
        raise HarnessError(f"{kind} name {name!r} must be made of a-z, 0-9, '-', '.' and '_'")
    return Entry(kind, name, value, plugin)
