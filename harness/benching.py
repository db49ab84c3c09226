"""What `harness bench` does: install certain versions of libraries into this interpreter, and run a suite with them.

Whatever comes of it is written down (`harness.attempts`), so that a version that cannot be installed or imported has
its place in the matrix, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.attempts import (
    MEASURED,
    MOST_CONFLICTS,
    MOST_REQUIREMENTS,
    NO_RUN,
    NOT_IMPORTED,
    NOT_INSTALLED,
    Attempt,
    write_attempt,
)
from harness.contract import MOST_REASON, HarnessError, printable
from harness.journal import take_lock
from harness.notices import say
from harness.schema import RUN_FILE
from harness.versions import canonical, require, without_pins

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LOCK_FILE = ".bench.lock"
MOST_NAME = 100  # characters of a folder's name
MOST_BEFORE = 300  # characters of what was printed before an import failed
IMPORT_SECONDS = 600.0
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color")
HARNESS = ("-P", "-c", "from harness.cli import main; main()")
UNSOLVED = "ResolutionImpossible"  # after which pip says no more than where its manual is
CAUSES = re.compile(r"^The conflict is caused by:((?:\n {4}.*)+)", re.MULTILINE)
IMPORT = """
import importlib, sys
try:
    for name in sys.argv[1:]:
        importlib.import_module(name)
except BaseException as error:
    from harness.contract import one_line
    sys.exit(one_line(error))
"""


class _NoRun(Exception):
    """Nothing is measured: the outcome, why, and the versions that are installed."""

    def __init__(self, outcome: str, reason: str, versions: Mapping[str, str]) -> None:
        self.outcome, self.reason, self.versions = outcome, reason, versions


def bench(requirements: Sequence[str], into: Path, constraints: Sequence[Path], arguments: Sequence[str]) -> int:
    """Install what is required, and run a suite with it; one at a time in one folder.

    Args:
        requirements: what to install, such as `onnxruntime==1.31.*`.
        into: the folder in which the run gets one of its own.
        constraints: files of versions for whatever else is installed with it; pins of what is required do not count.
        arguments: those of `harness run`, without its folder.

    Returns:
        the exit code of `harness run`; 1 if there was no run, with the reason written down.

    Raises:
        HarnessError: bad input, or the folder cannot be written.
    """
    if len(requirements) > MOST_REQUIREMENTS:
        raise HarnessError(f"--with: {len(requirements)} requirements; give {MOST_REQUIREMENTS} at most")
    wanted = [require(text) for text in requirements]
    if not importlib.util.find_spec("pip"):
        raise HarnessError(
            "harness bench installs with pip, which this interpreter has not; python -m ensurepip adds it"
        )
    with _pins(constraints, wanted) as pins, _alone(into):
        began = datetime.now(UTC)
        path = into / f"{_name(requirements)}-{began:%Y%m%d-%H%M%S}"
        conflicts: tuple[str, ...] = ()
        found: Mapping[str, str] = {}
        try:
            found = _install(wanted, pins)
            conflicts = _conflicts()
            _import(found)
            code, last = _told([*HARNESS, "run", *arguments, "--out", str(path)], merged=False)
            if not (path / RUN_FILE).is_file():
                raise _NoRun(NO_RUN, last.removeprefix("harness: ") or f"harness run ended with {code}", found)
            outcome, reason = MEASURED, ""
        except _NoRun as error:
            code, outcome, reason, found = 1, error.outcome, error.reason, error.versions
            say(f"harness: {', '.join(requirements)}: {outcome}: {reason}")
        try:
            write_attempt(Attempt(path, began, tuple(requirements), outcome, reason, found, conflicts))
        except OSError as error:
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}; choose another --into") from error
        return code


@contextlib.contextmanager
def _alone(into: Path) -> Iterator[None]:
    """Nobody else measures into this folder meanwhile; who comes second waits, and says so."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        file = (into / LOCK_FILE).open("ab")
    except OSError as error:
        raise HarnessError(f"'{into}' cannot be written: {error.strerror}; choose another --into") from error
    with file:
        if not take_lock(file):
            say(f"harness: another version is being measured into '{into}'; this one waits for it to end")
            take_lock(file, wait=True)
        yield


@contextlib.contextmanager
def _pins(constraints: Sequence[Path], wanted: Sequence[Requirement]) -> Iterator[list[str]]:
    """Arguments of pip that pin what the files pin, and not what is required."""
    names = {canonical(each.name) for each in wanted}
    texts = []
    for file in constraints:
        try:
            texts.append(without_pins(file.read_text(encoding="utf-8"), names, str(file)))
        except (OSError, UnicodeDecodeError) as error:
            raise HarnessError(f"'{file}' is no file of constraints; give one with lines such as name==1.2") from error
    if not texts:
        yield []
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(texts), encoding="utf-8")
        yield ["--constraint", str(path)]


def _install(wanted: Sequence[Requirement], pins: Sequence[str]) -> dict[str, str]:
    """Install what is required; the versions that are there then, by canonical name.

    Raises:
        _NoRun: pip cannot, or what this interpreter finds is something else.
    """
    code, last = _told([*PIP, "install", *pins, *map(str, wanted)])
    if code:
        raise _NoRun(NOT_INSTALLED, last or f"pip ended with {code}", {})
    importlib.invalidate_caches()
    found = {}
    for each in wanted:
        try:
            version = importlib.metadata.version(each.name)
        except importlib.metadata.PackageNotFoundError:
            raise _NoRun(NOT_INSTALLED, f"pip installed {each.name} where this interpreter does not look", {}) from None
        if not each.specifier.contains(version, prereleases=True):
            raise _NoRun(NOT_INSTALLED, f"pip installed {each}, and this interpreter finds {version}", {})
        found[canonical(each.name)] = version
    return found


def _import(found: Mapping[str, str]) -> None:
    """Import what was installed, in a process of its own.

    Raises:
        _NoRun: one cannot be imported.
    """
    for name, version in found.items():
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", IMPORT, *_modules(name)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=IMPORT_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise _NoRun(NOT_IMPORTED, f"{name} {version}: it took longer than {IMPORT_SECONDS:g} s", found) from None
        if done.returncode:
            lines = done.stderr.splitlines()
            if done.returncode != 1 or not lines:  # it could not say itself what had happened
                lines.append(_ended(done.returncode))
            *before, last = lines
            said = printable(" ".join(before), MOST_BEFORE)
            why = f"{name} {version}: {last}{f' (it said before: {said})' if said else ''}"
            raise _NoRun(NOT_IMPORTED, printable(why, MOST_REASON), found)


def _modules(name: str) -> list[str]:
    """What a distribution is imported as: the module of its name, or else all that it brings."""
    brings = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if name in map(canonical, owners) and module.isidentifier() and not module.startswith("_")
    ]
    return [module for module in brings if canonical(module) == name] or brings


def _conflicts() -> tuple[str, ...]:
    """What pip says of requirements that are not met by what is installed now."""
    done = subprocess.run([sys.executable, *PIP, "check"], capture_output=True, text=True, errors="replace")
    return tuple(map(printable, done.stdout.splitlines()[:MOST_CONFLICTS])) if done.returncode else ()


def _told(arguments: Sequence[str], merged: bool = True) -> tuple[int, str]:
    """Run Python with these arguments; what it says on standard error goes on to ours, as it comes.

    Args:
        arguments: those of the interpreter.
        merged: what it prints on standard output is said too; otherwise that stays our own.

    Returns:
        its exit code, and the last line that tells why it failed.
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE if merged else None,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        lines: list[str] = []
        stream = (process.stdout if merged else process.stderr) or ()
        try:
            for line in stream:
                say(line.rstrip("\n"))
                lines.append(line)
        except KeyboardInterrupt as ended:  # it puts its folder in order, and so it is waited for
            process.send_signal(getattr(ended, "number", signal.SIGINT))
            for line in stream:
                say(line.rstrip("\n"))
            process.wait()
            raise
        code = process.wait()
    return code if code >= 0 else 128 - code, _last(lines)  # as a shell tells of a signal


def _last(lines: Sequence[str]) -> str:
    """The last line that says something; of pip the last that begins with ERROR, with the conflict that it names."""
    said = [text for line in lines if (text := printable(line, MOST_REASON))]
    errors = [text.removeprefix("ERROR:") for text in said if text.startswith("ERROR:") and UNSOLVED not in text]
    if not errors:
        return (said or [""])[-1]
    causes = CAUSES.search("\n".join(line.rstrip("\n") for line in lines))
    named = "; ".join(line.strip() for line in causes[1].splitlines() if line) if causes else ""
    return printable(f"{errors[-1]} {named}", MOST_REASON)


def _ended(code: int) -> str:
    """How a process ended that could not say it itself."""
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it ended with {code}"


def _name(requirements: Sequence[str]) -> str:
    """A folder's name that says what is required: `onnxruntime-1.31-numpy-2.0`."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") for text in requirements)[:MOST_NAME]
