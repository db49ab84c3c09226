"""What plugins say of themselves as plain data, and a catalog of stand-ins made from it, without their code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.architectures import BUILT_IN
from harness.catalog import Catalog, Entry, Plugin, computes_nothing, make_entry
from harness.contract import (
    MOST_REASON,
    Accelerator,
    Architecture,
    HarnessError,
    LayerSize,
    Model,
    Recipe,
    ReportFormat,
    Task,
    Trainable,
    needs_accelerator,
    one_line,
    printable,
)


def describe(plugin: Plugin, entries: Sequence[Entry]) -> dict[str, Any]:
    """Everything about what a plugin gives but its code, as JSON can carry it."""
    return {"plugin": asdict(plugin), "entries": [_facts(entry.kind, entry.value) for entry in entries]}


def _facts(kind: str, value: Any) -> dict[str, Any]:
    facts = {"kind": kind, "name": value.name, "description": printable(value.description)}
    if kind == "model":
        shown = {name: getattr(value, name) for name in ("framework", "takes_lengths", "yardstick")}
        shown["size"] = asdict(value.size) if value.size else None
        return facts | shown | {"architecture": _architecture_facts(value.architecture)}
    if kind == "runtime":
        facts |= {"frameworks": sorted(value.frameworks), "trains": isinstance(value, Trainable)}
        facts |= {"needs_accelerator": needs_accelerator(value)}
        return facts | {"compute_dtype": getattr(value, "compute_dtype", None)}
    if kind in ("report format", "accelerator"):
        return facts
    shown = {name: getattr(value, name) for name in ("kind", "input_size", "time", "outputs", "ragged")}
    return facts | {"task": shown, "recipe": asdict(value.recipe)}


def _architecture_facts(architecture: Architecture) -> dict[str, Any]:
    return {
        "name": architecture.name,
        "directions": architecture.directions,
        "state_names": list(architecture.state_names),
        "is_built_in": architecture in BUILT_IN,
        "code": [_place(architecture.weight_shapes), _place(architecture.reference)],
        "computes_nothing": computes_nothing(architecture),
        "has_weights": architecture.weights is not None,
    }


def _place(function: Any) -> str:
    """Where a function comes from: what two plugins have from one place is the same."""
    code = getattr(function, "__code__", None)
    line = getattr(code, "co_firstlineno", "")
    owner = getattr(function, "__module__", type(function).__module__)
    return printable(f"{owner}:{getattr(function, '__qualname__', type(function).__qualname__)}:{line}")


def from_description(description: Any) -> Catalog:
    """A catalog of the one plugin that `describe` was given, with stand-ins whose every function raises HarnessError.

    Architectures of the core are the real ones.

    Raises:
        HarnessError: this is no description, or something in it is not what a plugin may give.
    """
    try:
        plugin = _plugin(**description["plugin"])
        entries = tuple(_entry(plugin, **facts) for facts in description["entries"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HarnessError(f"what it says of itself cannot be read: {one_line(error)}") from error
    return Catalog((plugin,), entries)


def _plugin(name: Any, distribution: Any, version: Any, failure: Any) -> Plugin:
    reason = None if failure is None else printable(failure, MOST_REASON)
    return Plugin(printable(name), printable(distribution), printable(version), reason)


def _architecture(
    name: Any,
    directions: Any,
    state_names: Any,
    is_built_in: Any,
    code: Any,
    computes_nothing: Any,
    has_weights: Any = False,
) -> Architecture:
    if is_built_in:
        return {known.name: known for known in BUILT_IN}[name]
    shapes = _Shapes(tuple(map(str, code)), computes_nothing is True)
    weights = _in_workers_only if has_weights is True else None
    return Architecture(name, directions, shapes, _in_workers_only, tuple(state_names), weights)


def _entry(plugin: Plugin, kind: str, name: Any, description: Any, **facts: Any) -> Entry:
    make: Mapping[str, Callable[..., Any]]
    make = {"model": _model, "runtime": _runtime, "task": _task, "report format": _report_format}
    make |= {"accelerator": _accelerator}
    return make_entry(kind, make[kind](name, printable(description), **facts), plugin)


def _model(
    name: Any, description: str, architecture: Any, framework: Any, takes_lengths: Any, yardstick: Any, size: Any = None
) -> Model:
    code, only = _in_workers_only, LayerSize(**size) if size is not None else None
    return Model(
        name, _architecture(**architecture), framework, code, takes_lengths, code, code, yardstick, description, only
    )


def _runtime(
    name: Any,
    description: str,
    frameworks: Any,
    trains: Any,
    compute_dtype: Any = None,
    needs_accelerator: Any = False,
) -> Any:
    kind = _TrainableStandIn if trains else _RuntimeStandIn
    return kind(name, frozenset(frameworks), description, compute_dtype, needs_accelerator)


def _task(name: Any, description: str, task: Any, recipe: Any) -> Task:
    return Task(name, **task, load=_in_workers_only, recipe=Recipe(**recipe), description=description)


def _report_format(name: Any, description: str) -> ReportFormat:
    return ReportFormat(name, description, _in_workers_only)


def _accelerator(name: Any, description: str) -> Accelerator:
    return Accelerator(name, description, _in_workers_only)


def _in_workers_only(*_: Any, **__: Any) -> Any:
    raise HarnessError("plugins' code runs in workers only; harness.discover() loads it into this process")


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Stands for `weight_shapes`: it knows whose, and whether there are any."""

    code: tuple[str, ...]
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
    compute_dtype: str | None
    needs_accelerator: bool

    def open(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()


@dataclass(frozen=True)
class _TrainableStandIn(_RuntimeStandIn):
    def open_trainer(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()

    def initial_weights(self, *_: Any, **__: Any) -> Any:
        _in_workers_only()
