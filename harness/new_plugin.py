"""A package for a plugin to begin with: complete, installable, and right as it is."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import re
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import harness
from harness.catalog import Catalog, is_installed
from harness.contract import CONTRACT_VERSION, NAME, HarnessError, printable

_TEMPLATES = resources.files("harness").joinpath("templates")


@dataclass(frozen=True)
class Beginning:
    """What a plugin of one kind begins with.

    Attributes:
        about: what it is, as the first words of a sentence.
        needs: the packages that its tests need beside pytest, with their bounds.
        run: the command that runs it, with `$name` where its name stands.
        run_needs: what else has to be installed for that, as a sentence.
    """

    about: str
    needs: tuple[str, ...]
    run: str
    run_needs: str


BEGINNINGS = {
    "model": Beginning(
        "An LSTM in NumPy",
        ("rnn-harness-numpy>=0.1",),
        "harness run --models $name,numpy-lstm --runtimes numpy --baselines numpy-lstm@numpy",
        "It also needs rnn-harness-tasks. Runtime `numpy` cannot train, so there are no scores.",
    ),
    "runtime": Beginning(
        "A runtime for NumPy models",
        ("rnn-harness-numpy>=0.1",),
        "harness run --models numpy-lstm --runtimes $name,numpy --baselines numpy-lstm@numpy",
        "It also needs rnn-harness-tasks. This runtime cannot train, so there are no scores.",
    ),
    "task": Beginning(
        "A small generated data set",
        (),
        "harness run --tasks $name",
        "Scores need a runtime that trains, such as `eager` from rnn-harness-torch.",
    ),
}


def package_files(name: str, kind: str) -> dict[str, str]:
    """The files of a new plugin's package, by their path in its folder: pure text, nothing is written.

    Args:
        name: the plugin's, which is also that of its package and of the model, runtime or task it gives.
        kind: `model`, `runtime` or `task`.
    """
    module, beginning = module_name(name), BEGINNINGS[kind]
    words = {
        "name": name,
        "module": module,
        "version": harness.__version__,
        "contract": str(CONTRACT_VERSION),
        "about": beginning.about,
        "test_dependencies": ", ".join(f'"{package}"' for package in ("pytest>=8", *beginning.needs)),
        "test_packages": " and ".join(("pytest", *(package.partition(">=")[0] for package in beginning.needs))),
        "run": Template(beginning.run).substitute(name=name),
        "run_needs": beginning.run_needs,
    }
    sources = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"src/{module}/__init__.py": f"{kind}.py.txt",
        "tests/test_conformance.py": "test_conformance.py.txt",
    }
    texts = {path: _TEMPLATES.joinpath(source).read_text(encoding="utf-8") for path, source in sources.items()}
    return {path: Template(text).substitute(words) for path, text in texts.items()} | {f"src/{module}/py.typed": ""}


def next_commands(name: str, kind: str, folder: Path) -> list[str]:
    """What to type when the package lies in `folder`, in this order."""
    place = str(folder) if folder.is_absolute() else f"./{folder.as_posix()}"
    return [
        f"pip install -e {shlex.quote(place + '[test]')}",
        "harness list",
        f"harness check {name}",
        f"pytest {shlex.quote(place)}",
        Template(BEGINNINGS[kind].run).substitute(name=name),
    ]


def module_name(name: str) -> str:
    """The Python module of a plugin of that name: the same, with `_` for `-` and `.`."""
    return re.sub(r"[-.]", "_", name)


def check_name(name: str) -> None:
    """Refuse a name that cannot be a plugin's.

    Raises:
        HarnessError: one line that says what a name is made of.
    """
    shown, module = printable(name), module_name(name)
    if not re.fullmatch(NAME, name) or not name[-1].isalnum():
        raise HarnessError(
            f"a plugin cannot be called '{shown}': a name is made of a-z, 0-9, '-', '.' and '_', begins and ends with "
            "a letter or digit and has at most 64 characters"
        )
    if not module.isidentifier() or keyword.iskeyword(module):
        raise HarnessError(
            f"a plugin cannot be called '{shown}': Python cannot import a module '{module}'; choose another name, such "
            f"as 'my-{shown}'"
        )


def check_is_free(name: str, kind: str, catalog: Catalog) -> None:
    """Refuse a name that something installed already has.

    Raises:
        HarnessError: one line that says who has it.
    """
    owners = [("plugin", plugin) for plugin in catalog.plugins if plugin.name == name]
    owners += [(kind, entry.plugin) for entry in catalog.entries if (entry.kind, entry.name) == (kind, name)]
    for what, owner in owners:
        raise HarnessError(f"{what} '{name}' is already provided by '{owner.distribution}'; choose another name")
    if is_installed(name) or _can_be_imported(module_name(name)):
        raise HarnessError(
            f"a package or module '{name}' is already installed, which a plugin of that name would hide; choose "
            f"another name, such as 'my-{name}'"
        )


def write_package(files: dict[str, str], folder: Path) -> None:
    """Write the files into a folder that is new or empty: all of them, or none.

    Raises:
        HarnessError: the folder is not empty, or cannot be written.
    """
    if folder.is_symlink() or folder.exists():
        is_empty = folder.is_dir() and not any(folder.iterdir())
        if not is_empty:
            raise HarnessError(f"'{folder}' exists and is not an empty folder; choose another with --out")
    try:
        _write_whole(files, folder)
    except OSError as error:
        raise HarnessError(f"'{folder}' cannot be written: {error.strerror}; choose another with --out") from error


def _write_whole(files: dict[str, str], folder: Path) -> None:
    """Everything is written beside its place and then moved. A folder that was there, a shell's perhaps, stays."""
    was_there = folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    moved: list[Path] = []
    unfinished = Path(tempfile.mkdtemp(prefix=".new-plugin-", dir=folder if was_there else folder.parent))
    try:
        package = unfinished / "package"
        for name, text in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text, encoding="utf-8")
        if not was_there:
            package.rename(folder)
        else:
            for path in sorted(package.iterdir()):
                moved.append(path.rename(folder / path.name))
    except BaseException:  # an interruption too leaves nothing behind
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _can_be_imported(module: str) -> bool:
    """Whether a module of that name is there; a bare folder of that name in the current folder is none."""
    with contextlib.suppress(ValueError):
        found = importlib.util.find_spec(module)
        return found is not None and found.origin is not None
    return True
