"""What plugins say of themselves as plain data, and a catalog of stand-ins made from it, without their code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.catalog import Catalog, Entry, Plugin, computes_nothing, make_entry
from harness.contract import (
    MOST_REASON,
    Architecture,
    HarnessError,
    LayerSize,
    Model,
    Recipe,
    Task,
    Trainable,
    one_line,
    printable,
)


def describe(catalog: Catalog) -> dict[str, Any]:
    """Everything about a catalog but its code, as JSON can carry it.

    Models refer to their architecture by its place in a list; those whose architectures are equal share one.
    """
    architectures: list[Architecture] = []

    def place(architecture: Architecture) -> int:
        if architecture not in architectures:
            architectures.append(architecture)
        return architectures.index(architecture)

    def facts(kind: str, value: Any) -> dict[str, Any]:
        if kind == "model":
            shown = {name: getattr(value, name) for name in ("framework", "takes_lengths", "yardstick")}
            return shown | {"architecture": place(value.architecture)}
        if kind == "runtime":
            return {"frameworks": sorted(value.frameworks), "trains": isinstance(value, Trainable)}
        shown = {name: getattr(value, name) for name in ("kind", "input_size", "time", "outputs")}
        return {"task": shown, "recipe": asdict(value.recipe)}

    entries = [
        {
            "plugin": catalog.plugins.index(entry.plugin),
            "kind": entry.kind,
            "name": entry.name,
            "description": printable(entry.value.description),
            **facts(entry.kind, entry.value),
        }
        for entry in catalog.entries
    ]
    return {
        "plugins": [asdict(plugin) for plugin in catalog.plugins],
        "architectures": [
            {
                "name": architecture.name,
                "directions": architecture.directions,
                "state_names": list(architecture.state_names),
                "computes_nothing": computes_nothing(architecture),
            }
            for architecture in architectures
        ],
        "entries": entries,
    }


def from_description(description: Any) -> Catalog:
    """The catalog of which `describe` gave this, with stand-ins whose every function raises HarnessError.

    Raises:
        HarnessError: this is no description, or something in it is not what a plugin may give.
    """
    try:
        plugins = tuple(_plugin(**plugin) for plugin in description["plugins"])
        architectures = [_architecture(i, **facts) for i, facts in enumerate(description["architectures"])]
        entries = tuple(_entry(plugins, architectures, **facts) for facts in description["entries"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HarnessError(f"what it says of itself cannot be read: {one_line(error)}") from error
    return Catalog(plugins, entries)


def _plugin(name: Any, distribution: Any, version: Any, failure: Any) -> Plugin:
    reason = None if failure is None else printable(failure, MOST_REASON)
    return Plugin(printable(name), printable(distribution), printable(version), reason)


def _architecture(place: int, name: Any, directions: Any, state_names: Any, computes_nothing: Any) -> Architecture:
    shapes = _Shapes(place, computes_nothing is True)
    return Architecture(name, directions, shapes, _in_workers_only, tuple(state_names))


def _entry(
    plugins: tuple[Plugin, ...],
    architectures: list[Architecture],
    plugin: int,
    kind: str,
    name: Any,
    description: Any,
    **facts: Any,
) -> Entry:
    make: Mapping[str, Callable[..., Any]] = {"model": _model, "runtime": _runtime, "task": _task}
    if kind == "model":
        facts["architecture"] = architectures[facts["architecture"]]
    return make_entry(kind, make[kind](name, printable(description), **facts), plugins[plugin])


def _model(
    name: Any, description: str, architecture: Architecture, framework: Any, takes_lengths: Any, yardstick: Any
) -> Model:
    code = _in_workers_only
    return Model(name, architecture, framework, code, takes_lengths, code, code, yardstick, description)


def _runtime(name: Any, description: str, frameworks: Any, trains: Any) -> Any:
    return (_TrainableStandIn if trains else _RuntimeStandIn)(name, frozenset(frameworks), description)


def _task(name: Any, description: str, task: Any, recipe: Any) -> Task:
    return Task(name, **task, load=_in_workers_only, recipe=Recipe(**recipe), description=description)


def _in_workers_only(*_: Any, **__: Any) -> Any:
    raise HarnessError("plugins' code runs in workers only; harness.discover() loads it into this process")


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Stands for `weight_shapes`: it knows which architecture's, and whether there are any."""

    place: int
    is_empty: bool

    def __call__(self, size: LayerSize) -> Mapping[str, tuple[int, ...]]:
        if not self.is_empty:
            _in_workers_only()
        return {}


@dataclass(frozen=True)
class _RuntimeStandIn:
    name: str
    frameworks: frozenset[str]
    description: str

    def open(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()


@dataclass(frozen=True)
class _TrainableStandIn(_RuntimeStandIn):
    def open_trainer(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()

    def initial_weights(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()
