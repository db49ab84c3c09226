"""Going on with a run: is it still the same plan, in the same environment?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.contract import HarnessError, printable

VOLATILE = frozenset({"environment.started_utc", "environment.command", "environment.load_average_1min"})
COMPARED = ("suite", "plugins", "environment", "pythons")
LONGEST_VALUE = 80


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed since a run began, one line each: `environment versions.torch: "2.12.0", now "2.13.0"`.

    Args:
        before: the run's `run.json`.
        now: what `run.json` would say if the run began now.

    Raises:
        HarnessError: other trials would be planned, so that nothing of the run could be gone on with.
    """
    now = json.loads(json.dumps(now))  # as it would be read again
    if _without_versions(before["trials"]) != _without_versions(now["trials"]):
        changed = [_difference(*pair) for pair in _changes(before, now)]
        because = f" ({'; '.join(changed[:3])})" if changed else ""
        raise HarnessError(
            f"{len(before['trials'])} trials were planned, and now {len(now['trials'])} others would be{because}; "
            "start a new run"
        )
    return [_difference(*pair) for pair in _changes(before, now)]


def _without_versions(trials: Any) -> Any:
    """Another version of a plugin is a difference, but no other trial."""
    if not isinstance(trials, list):
        return trials
    return [
        {name: value for name, value in trial.items() if not name.endswith("_version")}
        if isinstance(trial, Mapping)
        else trial
        for trial in trials
    ]


def _without_failed(plugins: Any, others: Any) -> Any:
    """Without those that failed and are not sound on the other side: they gave nothing, and tell it in other words."""
    if not isinstance(plugins, list) or not isinstance(others, list):
        return plugins
    sound = [plugin.get("name") for plugin in others if isinstance(plugin, Mapping) and not plugin.get("failure")]
    return [
        plugin
        for plugin in plugins
        if not (isinstance(plugin, Mapping) and plugin.get("failure") and plugin.get("name") not in sound)
    ]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    plugins = before.get("plugins"), now.get("plugins")
    told = _without_failed(*plugins), _without_failed(*reversed(plugins))
    sides = zip((before, now), told, strict=True)
    old, new = (dict(_flat({name: side.get(name) for name in COMPARED} | {"plugins": own})) for side, own in sides)
    for name in dict.fromkeys([*old, *new]):
        if name not in VOLATILE and old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested tables with their dotted names; a plugin is known by its name."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        names = [item.get("name") for item in value]
        if all(isinstance(own, str) for own in names) and len(set(names)) == len(names):
            value = dict(zip(names, value, strict=True))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _difference(name: str, before: Any, now: Any) -> str:
    section, _, rest = name.partition(".")
    old, new = (json.dumps(value) for value in (before, now))
    old, new = (text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..." for text in (old, new))
    return f"{printable(f'{section} {rest}'.rstrip())}: {old}, now {new}"
