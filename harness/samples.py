"""Raw samples: one CSV file a process that timed, a row a timed call."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.contract import one_line

SAMPLE_COLUMNS = [
    *("trial", "slice", "process", "instance", "boundary", "block", "turn", "call", "start_s", "elapsed_s"),
    "disturbed",
]
SAMPLE_TYPES = dict.fromkeys(SAMPLE_COLUMNS, "int64") | {
    **dict.fromkeys(["trial", "boundary"], "str"),
    **dict.fromkeys(["start_s", "elapsed_s"], "float64"),
    "disturbed": "Int64",
}


def samples_file(process: int) -> Path:
    """Where in a run's folder the samples of a process lie."""
    return Path("samples", f"{process:04d}.csv")


def samples_text(rows: Iterable[Sequence[Any]]) -> str:
    """A samples file's text; each row has `SAMPLE_COLUMNS`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(SAMPLE_COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def read_samples(folder: Path, digests: Mapping[int, str], planned: Sequence[str], damage: list[str]) -> pd.DataFrame:
    """The samples of all processes, in the order of their trials in the plan.

    Args:
        folder: the run's.
        digests: SHA-256 of each process's file, by its number.
        planned: the trials; samples of others are left out.
        damage: what cannot be read is told here, a sentence each.
    """
    frames = []
    for process, digest in digests.items():
        path = folder / samples_file(process)
        try:
            data = path.read_bytes()
        except OSError as error:
            damage.append(f"'{path}' cannot be read ({error.strerror}); its samples are missing")
            continue
        if hashlib.sha256(data).hexdigest() != digest:
            damage.append(f"'{path}' is damaged: its checksum differs; its samples are left out")
            continue
        try:
            frames.append(_parse_samples(data))
        except (ValueError, TypeError, OverflowError) as error:
            damage.append(f"'{path}' is damaged: {one_line(error)}; its samples are left out")
    if not frames:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    samples = pd.concat(frames, ignore_index=True)
    order = {trial: place for place, trial in enumerate(planned)}
    places = samples["trial"].map(order)
    return samples[places.notna()].iloc[places.dropna().argsort(kind="stable")].reset_index(drop=True)


def _parse_samples(data: bytes) -> pd.DataFrame:
    """A samples file's table; what is not one raises ValueError, TypeError or OverflowError."""
    samples = pd.read_csv(io.BytesIO(data), dtype=SAMPLE_TYPES)
    if list(samples.columns) != SAMPLE_COLUMNS:
        raise ValueError(f"its columns are not {', '.join(SAMPLE_COLUMNS)}")
    if samples[["start_s", "elapsed_s"]].isna().any(axis=None) or not samples["disturbed"].dropna().isin([0, 1]).all():
        raise ValueError("a time is missing, or disturbed is not 0, 1 or empty")
    return samples


def iterations(header: Mapping[str, Any]) -> dict[str, int]:
    """Of how many calls a sample is the mean, by trial, as the header of an imported run says; of others it is one."""
    imported = header.get("imported")
    told = imported.get("benchmarks") if isinstance(imported, dict) else None
    sources = told.items() if isinstance(told, dict) else ()
    return {trial: int(own["iterations"]) for trial, own in sources if isinstance(own, dict) and "iterations" in own}
