"""The conformance kit, for plugins' tests: is everything that a plugin gives what the contract asks for?

Every `check_<rule>` returns nothing if the rule is kept, raises `CheckFailed` if it is broken, and lets
`harness.Unsupported` through. Whatever else a plugin raises is its own and is not hidden. Those that a variant is asked
are in `CHECKS` and called as `Check` says; the two others are for a plugin and for a task. One line makes a pytest test
of them all:

    test_conformance = harness.testing.conformance("my-plugin")
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.catalog import Catalog, check_names, discover, hint
from harness.checked_device import CheckedDevice
from harness.contract import (
    Accelerator,
    Data,
    DataError,
    DeviceState,
    HarnessError,
    LayerSize,
    Model,
    Runtime,
    SessionOptions,
    Split,
    Task,
    Unsupported,
    one_line,
    printable,
)
from harness.rules import (
    CHECKS,
    SIZE,
    Check,
    CheckFailed,
    applicable,
    bits,
    check_batch_of_n_is_n_batches_of_one,
    check_causality,
    check_chunked_equals_whole,
    check_claims,
    check_determinism,
    check_gradients,
    check_inputs_not_mutated,
    check_no_state_leak,
    check_padding_never_leaks,
    check_parity,
    check_results_are_kept,
    check_sessions_do_not_disturb_each_other,
    check_shape_and_dtype,
    check_weights_round_trip,
)

__all__ = [
    "CHECKS",
    "Check",
    "CheckFailed",
    "applicable",
    "check_accelerator",
    "check_batch_of_n_is_n_batches_of_one",
    "check_causality",
    "check_chunked_equals_whole",
    "check_claims",
    "check_determinism",
    "check_gradients",
    "check_import_is_free",
    "check_inputs_not_mutated",
    "check_no_state_leak",
    "check_padding_never_leaks",
    "check_parity",
    "check_results_are_kept",
    "check_sessions_do_not_disturb_each_other",
    "check_shape_and_dtype",
    "check_task_data",
    "check_weights_round_trip",
    "conformance",
]

IMPORT_SECONDS = 60.0
EVERY_CHECK = (*CHECKS, "import_is_free", "task_data", "accelerator")
IMPORT = """
import json, sys
from importlib.machinery import ExtensionFileLoader
from harness.catalog import installed_plugins, load_plugin
before = set(sys.modules)
loaded = [load_plugin(*found)[0] for found in installed_plugins() if found[0].name == sys.argv[1]]
new = [name for name in list(sys.modules) if name not in before]
compiled = [n for n in new if isinstance(getattr(getattr(sys.modules[n], "__spec__", None), "loader", None),
    ExtensionFileLoader)]
packages = {name.partition(".")[0] for name in compiled} - sys.stdlib_module_names
print(json.dumps({"failures": [p.failure for p in loaded if p.failure], "packages": sorted(packages)}))
"""


def check_import_is_free(plugin: str) -> None:
    """Importing a plugin (its entry point's name) and asking its hooks loads no compiled code of any package.

    That is how NumPy and every framework are told from what costs nothing. It is tried in a fresh interpreter.

    Raises:
        CheckFailed: it does, or the plugin cannot be loaded.
    """
    command = [sys.executable, "-P", "-c", IMPORT, plugin]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
        found = json.loads(done.stdout.splitlines()[-1])
        failures, packages = found["failures"], found["packages"]
    except (subprocess.TimeoutExpired, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"the interpreter that imports it gives no answer ({one_line(error)})"
        raise CheckFailed(plugin, "import_is_free", f"{reason}; import it by hand and see") from error
    if failures:
        raise CheckFailed(plugin, "import_is_free", f"it cannot be loaded: {'; '.join(failures)}; repair that first")
    if packages:
        reason = f"importing it loads {', '.join(packages)}; import those in the functions that need them"
        raise CheckFailed(plugin, "import_is_free", reason)


def check_task_data(task: Task, data_dir: Path | None = None) -> None:
    """A task's data has the shapes and dtypes of `harness.Split`, what the task says of it, and is always the same.

    Raises:
        CheckFailed: it has not, or loading it twice gives two data sets.
        DataError: it is missing or damaged.
    """
    first = task.load(data_dir)
    problem = _data_problem(task, first)
    if not problem and bits(_split_arrays(first)) != bits(_split_arrays(task.load(data_dir))):
        problem = "loading it twice gives two different data sets; seed what is random"
    if problem:
        raise CheckFailed(task.name, "task_data", problem)


def check_accelerator(accelerator: Accelerator, device: str) -> None:
    """The device of that name waits, has a clock that runs as the host's does, and says of itself what it may.

    Raises:
        CheckFailed: it does not.
        Unsupported: it is none of the accelerator's, or not here.
    """
    opened = accelerator.open(device)
    who = f"accelerator '{accelerator.name}'"
    try:
        checked = CheckedDevice(accelerator.name, opened)
        checked.check_clock()
        with contextlib.suppress(Unsupported):  # that caches cannot be emptied is no mistake
            checked.evict()
        checked.drain()
    except HarnessError as error:
        raise CheckFailed(accelerator.name, "accelerator", str(error).removeprefix(f"{who}: ")) from error
    state, energy = opened.state(), opened.energy_j()
    if not isinstance(state, DeviceState):
        reason = f"state gave a {type(state).__name__}; give harness.DeviceState"
        raise CheckFailed(accelerator.name, "accelerator", reason)
    told, kept = (
        {own.name for own in fields(one) if getattr(one, own.name) is not None} for one in (state, checked.state())
    )
    if lost := [own.name for own in fields(state) if own.name in told - kept]:
        reason = f"state: {', '.join(lost)} must be a finite number, or a text where it is one"
        raise CheckFailed(accelerator.name, "accelerator", reason)
    if energy is not None and checked.energy_j() is None:
        reason = f"energy_j gave {printable(energy)}; it must give joules, or None"
        raise CheckFailed(accelerator.name, "accelerator", reason)


def conformance(
    plugin: str,
    *,
    expected_failures: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    marks: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    size: LayerSize = SIZE,
    dtype: str = "float32",
) -> Callable[..., None]:
    """A pytest test of everything a plugin gives, one case a rule and variant, such as `my-lstm@eager-parity`.

    Checked are every model of the plugin on every installed runtime that accepts it, every runtime of the plugin with
    every installed model it accepts, the plugin's import and its tasks. What a plugin refuses, and a task whose data is
    not there, is skipped with the reason. Data sets are looked for in the folder that `HARNESS_DATA_DIR` names.

    Args:
        plugin: the name of its entry point.
        expected_failures: by variant (or plugin, or task) and check, the reason why it fails. If it does not, the test
            fails.
        marks: pytest marks by pattern (`*@onnxruntime`) of a variant's name.
        size, dtype: of the layers; a model that has one size only is checked at that.

    Raises:
        HarnessError: no such plugin, it cannot be loaded, or expected_failures has an unknown name.
    """
    from fnmatch import fnmatchcase

    import pytest

    catalog = discover()
    check_names([plugin], [known.name for known in catalog.plugins])
    for known in catalog.plugins:
        if known.name == plugin and known.failure:
            raise HarnessError(f"plugin '{plugin}' cannot be loaded: {known.failure}; repair that first")
    jobs = dict(_jobs(catalog, plugin, size, dtype))
    require_known("expected_failures", "variant, plugin or task", expected_failures, [label for label, _ in jobs])
    for label, reasons in expected_failures.items():
        rules = [rule for other, rule in jobs if other == label]
        require_known(f"expected_failures of '{label}'", "check", reasons, rules)

    def case(label: str, rule: str, job: Callable[[Path], None]) -> Any:
        found = [mark for pattern, own in marks.items() if fnmatchcase(label, pattern) for mark in own]
        if reason := expected_failures.get(label, {}).get(rule):
            found.append(pytest.mark.xfail(reason=reason, strict=True))
        return pytest.param(job, id=f"{label}-{rule}", marks=found)

    @pytest.mark.parametrize("job", [case(*key, job) for key, job in jobs.items()])
    def test_conformance(job: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> None:
        try:
            job(tmp_path_factory.getbasetemp() / "harness-cache")
        except (Unsupported, DataError) as reason:
            pytest.skip(str(reason))

    return test_conformance


def answer(
    rule: str,
    catalog: Catalog,
    name: str,
    data_dir: str | None,
    variant: tuple[Model, Runtime, SessionOptions] | None,
    device: str = "cpu",
) -> dict[str, str]:
    """Ask a rule of a variant or, without one, of the plugin or task of that name, or of the accelerator's device.

    Returns:
        `check`, the rule; `status`, `ok` or `wrong`; and `reason`, why it is wrong.

    Raises:
        whatever the check raises but CheckFailed.
    """
    try:
        if variant:
            model, runtime, options = variant
            more = (options.size, options.dtype, options.threads, options.device, options.cache_dir)
            CHECKS[rule](model, runtime, *more)
        elif rule == "task_data":
            check_task_data(catalog.task(name), Path(data_dir) if data_dir else None)
        elif rule == "accelerator":
            check_accelerator(catalog.accelerator(name), device)
        else:
            check_import_is_free(name)
    except CheckFailed as failure:
        return {"check": rule, "status": "wrong", "reason": failure.reason}
    return {"check": rule, "status": "ok", "reason": ""}


def require_known(where: str, kind: str, names: Iterable[str], known: list[str]) -> None:
    """Refuse a name that is none of these.

    Raises:
        HarnessError: naming near names, or all there are.
    """
    for name in names:
        if name not in known:
            near = hint(name, list(dict.fromkeys(known)))
            raise HarnessError(f"{where}: no {kind} is called '{printable(name)}'; {near}")


def _jobs(
    catalog: Catalog, plugin: str, size: LayerSize, dtype: str
) -> Iterator[tuple[tuple[str, str], Callable[[Path], None]]]:
    """What is checked, by label and rule; each takes a folder that sessions may keep things in."""
    check: Callable[..., None]
    yield (plugin, "import_is_free"), _without_folder(partial(check_import_is_free, plugin))
    for model, runtime in catalog.variants(plugin):
        for rule in applicable(model, runtime):
            check = partial(CHECKS[rule], model, runtime, model.size or size, dtype)
            yield (f"{model.name}@{runtime.name}", rule), _with_folder(check)
    folder = os.environ.get("HARNESS_DATA_DIR")
    for entry in catalog.entries:
        if entry.kind == "task" and entry.plugin.name == plugin:
            check = partial(check_task_data, entry.value, Path(folder) if folder else None)
            yield (entry.name, "task_data"), _without_folder(check)


def _with_folder(check: Callable[..., None]) -> Callable[[Path], None]:
    return lambda folder: check(cache_dir=folder)


def _without_folder(check: Callable[[], None]) -> Callable[[Path], None]:
    return lambda folder: check()


def _split_arrays(data: Data) -> list[Any]:
    return [a for split in (data.train, data.test) for a in (split.x, split.targets, split.lengths) if a is not None]


def _data_problem(task: Task, data: Any) -> str:
    """What is wrong with a task's data, and what is asked; or an empty text."""
    if not isinstance(data, Data):
        return f"load gives a {type(data).__name__}; give harness.Data"
    for name, split in (("train", data.train), ("test", data.test)):
        if problem := _split_problem(task, split):
            return f"{name}: {problem}"
    if task.ragged and data.test.lengths is None:
        return "test: it has no lengths; give them, or do not call the task ragged"
    return ""


def _split_problem(task: Task, split: Split) -> str:
    import numpy as np

    rows = len(split.x)
    x = (task.time, task.input_size), "float32"
    targets = ((), "int64") if task.kind == "classification" else ((task.outputs,), "float32")
    wanted = {"x": x, "targets": targets} | ({} if split.lengths is None else {"lengths": ((), "int64")})
    for name, (shape, dtype) in wanted.items():
        array = getattr(split, name)
        if not isinstance(array, np.ndarray):
            return f"{name} is a {type(array).__name__}; give a NumPy array"
        if (array.shape, array.dtype) != ((rows, *shape), dtype):
            return f"{name} is {array.dtype} {array.shape}; the task says {dtype} {(rows, *shape)}"
    if not rows:
        return "it has no rows; give some"
    if split.lengths is not None and not ((split.lengths >= 1) & (split.lengths <= task.time)).all():
        return f"lengths go from {split.lengths.min()} to {split.lengths.max()}; every one is in 1..{task.time}"
    ends = np.full(rows, task.time) if split.lengths is None else split.lengths
    if not np.isfinite(split.x[np.arange(task.time) < ends[:, None]]).all():
        return "x is not finite at some real step; leave such rows out"
    if task.kind == "classification" and not ((split.targets >= 0) & (split.targets < task.outputs)).all():
        return f"targets go from {split.targets.min()} to {split.targets.max()}; classes are 0..{task.outputs - 1}"
    return "" if np.isfinite(split.targets).all() else "targets are not finite; leave such rows out"
