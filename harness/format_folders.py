"""What `harness report --format` does: formats by name, each of which has written its folder whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.catalog import Catalog, Entry
from harness.contract import HarnessError, printable
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.engine.survey import survey
from harness.formats import BUILT_IN, with_built_in
from harness.journal import read_json, write_atomically
from harness.store import FOLDERS, Run, load
from harness.terminal import print_lines, tell_damage

MARK = ".harness-format"  # in a folder: which format wrote it, and which files
SECONDS = 300.0  # how long a plugin's format may take, with loading it
RUNS_OWN = (*FOLDERS, "tables", "charts")


def tell_formats(path: Path, names: Sequence[str], out: Path | None, plugins: Collection[str] | None) -> None:
    """Write the run in a folder in these formats, as `write_formats` does, and print where each lies.

    Raises:
        HarnessError: it is no run, or as `write_formats`.
    """
    run = load(path)
    tell_damage(run)
    for name, folder in write_formats(run, names, out, plugins):
        print_lines([f"{name}: {folder}"])


def write_formats(
    run: Run, names: Sequence[str], out: Path | None = None, plugins: Collection[str] | None = None
) -> Iterator[tuple[str, Path]]:
    """Write a run's tables in these formats: the core's here, a plugin's in a worker.

    One that fails costs no other its files. Its folder is as it was before, and so is that of one that is interrupted.

    Args:
        run: as it was loaded.
        names: of the formats. One of the core's means that one; a plugin's of the same name is never used.
        out: the folder of the files or, of several formats, of a folder for each. None: the run's own.
        plugins: the names of those to load; None for all. None is loaded where all formats are the core's.

    Yields:
        the name and the folder of each format that has been written.

    Raises:
        HarnessError: before anything is written: a name is unknown, or a folder holds what its format did not write. At
            the end: a format failed, or its folder cannot be written.
    """
    core = with_built_in(Catalog((), ()))
    everything = core if all(name in BUILT_IN for name in names) else with_built_in(survey(plugins))
    chosen = [(core if name in BUILT_IN else everything).entry("report format", name) for name in names]
    places = [(entry, _place(run, entry.name, out, len(chosen) > 1)) for entry in chosen]
    for entry, folder in places:
        _check_is_ours(folder, entry.name)
    failures = []
    for entry, folder in places:
        try:
            _write_whole(entry, run, folder)
        except HarnessError as error:
            failures.append(str(error))
        else:
            yield entry.name, folder
    if failures:
        raise HarnessError("; ".join(failures))


def _place(run: Run, name: str, out: Path | None, is_one_of_many: bool) -> Path:
    folder = run.path / name if out is None else out / name if is_one_of_many else out
    if folder.resolve() in [run.path.resolve() / own for own in RUNS_OWN]:
        raise HarnessError(f"'{folder}' is a part of the run itself; choose another folder with --out")
    return folder


def _check_is_ours(folder: Path, name: str) -> None:
    """Refuse a place where anything lies that this format has not put there."""
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise HarnessError(f"'{folder}' is no folder; choose another --out")
        if not any(folder.iterdir()):
            return
        written = _written_before(folder, name)
        if written is None:
            raise HarnessError(
                f"'{folder}' is not empty and was not written by format '{name}'; choose another --out, or remove it"
            )
        strange = [file for file in _files(folder) if file not in (*written, MARK)]
    except OSError as error:
        raise HarnessError(f"'{folder}' cannot be read: {error.strerror}; choose another --out") from error
    if strange:
        shown = printable(strange[0])
        raise HarnessError(
            f"'{folder}' holds '{shown}', which format '{name}' did not write; move it away, or choose another --out"
        )


def _written_before(folder: Path, name: str) -> list[str] | None:
    """The files that this format wrote into a folder; None if it is not the one that did."""
    try:
        mark = read_json((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return None
    match mark:
        case {"format": str(writer), "files": [*files]} if writer == name:
            return [str(file) for file in files]
    return None


def _write_whole(entry: Entry, run: Run, folder: Path) -> None:
    """Everything is written beside its place and then moved there; what was there before goes, or comes back."""
    target = folder.resolve()
    try:
        near = next(parent for parent in target.parents if parent.is_dir())
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=near))
        try:
            fresh = unfinished / "new"  # for its mask is the user's, unlike that of the folder around it
            fresh.mkdir()
            if entry.name in BUILT_IN:
                entry.value.write(run, fresh)
            else:
                _write_in_worker(entry, run, fresh)
            mark = {"format": entry.name, "files": _files(fresh)}
            write_atomically(fresh / MARK, json.dumps(mark, indent=2) + "\n")
            target.parent.mkdir(parents=True, exist_ok=True)
            _swap(fresh, target, unfinished / "old")
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise HarnessError(f"'{folder}' cannot be written: {error.strerror}; choose another --out") from error


def _swap(fresh: Path, target: Path, old: Path) -> None:
    try:
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except BaseException:  # an interruption too
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def _write_in_worker(entry: Entry, run: Run, folder: Path) -> None:
    who = f"report format '{entry.name}' of '{entry.plugin.distribution}'"
    place = {"run": str(run.path.resolve()), "folder": str(folder)}
    try:
        worker = WorkerProcess(threads=1, plugins=[entry.plugin.name])
    except OSError as error:
        raise HarnessError(f"a worker cannot be started: {error.strerror}") from error
    try:
        with worker:
            worker.ask("report", SECONDS, name=entry.name, **place)
        found = [] if folder.is_symlink() else _files(folder)
    except WorkerFailure as failure:
        reason = f"it took longer than {SECONDS:g} s" if failure.status == "timed-out" else failure.reason
        raise HarnessError(f"{who} {failure.status}: {reason}; nothing of it is kept, tell its author") from failure
    if not found:
        raise HarnessError(f"{who} failed: it wrote no file; tell its author")


def _files(folder: Path) -> list[str]:
    """Everything in a folder that is no folder, by its path below it."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [Path(place, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)
