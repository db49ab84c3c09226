"""What is said beside the results, on standard error. If nobody can read it, the work goes on all the same."""

from __future__ import annotations

import contextlib

import click


def say(text: str) -> None:
    """Print a line on standard error, if that can be written to."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
