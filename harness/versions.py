"""Versions and requirements of packages: which are meant, in which order they came, what is pinned.

What they mean is decided by `packaging`, as it is for pip. It is an extra of the harness, imported when it is needed.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Container
from typing import TYPE_CHECKING

from harness.contract import HarnessError, one_line, printable

if TYPE_CHECKING:
    from packaging.requirements import Requirement

MOST_REQUIREMENT = 200  # characters of one
Order = tuple[bool, object]  # the text of what is no version after all that are


def parse(text: str) -> Requirement:
    """A requirement as pip reads it, such as `onnxruntime==1.31.*`.

    Raises:
        HarnessError: it is none, or the extra `matrix` is not installed.
    """
    check_available()
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        if len(text) > MOST_REQUIREMENT:
            raise InvalidRequirement(f"it is longer than {MOST_REQUIREMENT} characters")
        return Requirement(text)
    except InvalidRequirement as error:
        raise HarnessError(
            f"'{printable(text)}' is no requirement ({one_line(error)}); write one such as 'onnxruntime==1.31.*'"
        ) from error


def require(text: str) -> Requirement:
    """A requirement that is to be installed here.

    Raises:
        HarnessError: as `parse`, or it does not hold for this interpreter.
    """
    found = parse(text)
    if found.marker and not found.marker.evaluate():
        raise HarnessError(f"'{text}' is not meant for this interpreter, so nothing would be installed; leave out ';'")
    return found


def canonical(name: str) -> str:
    """The one spelling of a distribution's name: `Typing.Extensions` is `typing-extensions`."""
    return re.sub(r"[-_.]+", "-", name).lower()  # PEP 503


def order(version: str) -> Order:
    """A key that sorts versions as they came: 1.9 before 1.10rc1 before 1.10.

    Raises:
        HarnessError: the extra `matrix` is not installed.
    """
    check_available()
    from packaging.version import InvalidVersion, Version

    try:
        return False, Version(version)
    except InvalidVersion:
        return True, version


def asked_version(requirement: Requirement) -> str:
    """The lowest version that a requirement names, to sort it by where none was installed; empty if there is none."""
    return min((each.version.removesuffix(".*") for each in requirement.specifier), key=order, default="")


def without_pins(constraints: str, names: Container[str], where: str) -> str:
    """The lines of a file of constraints but those for these distributions.

    Args:
        constraints: the file's text.
        names: canonical ones.
        where: what the file is called.

    Raises:
        HarnessError: a line is an option or no requirement; the extra `matrix` is not installed.
    """
    kept = []
    for number, line in enumerate(constraints.splitlines(), start=1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text.startswith("-") or text.endswith("\\"):
            raise HarnessError(f"'{where}', line {number}: options are not read in constraints; write name==version")
        if text and (name := re.match(r"[A-Za-z0-9._-]+", text)) and canonical(name[0]) not in names:
            kept.append(text)
    return "\n".join([*kept, ""])


def check_available() -> None:
    """See that the extra `matrix` is installed.

    Raises:
        HarnessError: it is not.
    """
    if not importlib.util.find_spec("packaging"):
        raise HarnessError("a matrix over versions needs one more package; pip install 'rnn-harness[matrix]'")
