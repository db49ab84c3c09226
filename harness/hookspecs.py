"""The hooks a plugin may implement. Each takes no argument and returns records of `harness.contract`."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from harness.contract import Accelerator, Model, ReportFormat, Runtime, Task

ENTRY_POINT_GROUP = "harness"

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


@hookspec
def harness_models() -> Iterable[Model]:
    """The models this plugin gives."""
    raise NotImplementedError


@hookspec
def harness_runtimes() -> Iterable[Runtime]:
    """The runtimes this plugin gives."""
    raise NotImplementedError


@hookspec
def harness_tasks() -> Iterable[Task]:
    """The tasks this plugin gives."""
    raise NotImplementedError


@hookspec
def harness_report_formats() -> Iterable[ReportFormat]:
    """The report formats this plugin gives."""
    raise NotImplementedError


@hookspec
def harness_accelerators() -> Iterable[Accelerator]:
    """The accelerators whose clock this plugin reads."""
    raise NotImplementedError
