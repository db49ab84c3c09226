"""A layer that any process can build again, because it is named by a module and an attribute of it.

The attribute is what a user has: a class or function that takes `input_size`, `hidden_size` and `num_layers`, one that
takes nothing, or a finished layer. Nothing is imported before a layer is built.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

from harness.contract import HarnessError, LayerSize, Unsupported, printable

TARGET = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
SIZES = ("input_size", "hidden_size", "num_layers")
TAKES = "a layer is built by what takes input_size, hidden_size and num_layers, or nothing"


@dataclass(frozen=True)
class NamedLayer:
    """How to build a layer.

    Attributes:
        target: `module:attribute`; the attribute may have dots.
        folder: where the module is looked for before all other places; empty for none. The modules that it imports are
            looked for there last, so that no file there stands in for an installed package.
        size: the only size it has; None for any.
    """

    target: str
    folder: str = ""
    size: LayerSize | None = None

    def __call__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> Any:
        """A fresh layer of this size.

        Raises:
            Unsupported: it has another size.
            HarnessError: the target cannot be found, or is nothing that gives a layer.
            whatever the user's code raises.
        """
        self.require(LayerSize(input_size, hidden_size, num_layers))
        found = self.attribute()
        if not _is_builder(found):
            return copy.deepcopy(found)
        names = sizes_taken(found, self.target)
        if names and "num_layers" not in names and num_layers != self.depth:
            has = "one layer" if self.depth == 1 else f"{self.depth} layers"
            raise Unsupported(f"'{self.target}' takes no num_layers, so it has {has} and not {num_layers}")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        return found(**{name: sizes[name] for name in names})

    def require(self, size: LayerSize) -> None:
        """Refuse another size than the only one.

        Raises:
            Unsupported: saying which it has.
        """
        if self.size not in (None, size):
            raise Unsupported(f"'{self.target}' has one size, {in_words(self.size)}; asked for was {in_words(size)}")

    @property
    def has_one_size(self) -> bool:
        """Whether nobody can choose its size; imports the target."""
        found = self.attribute()
        return not (_is_builder(found) and sizes_taken(found, self.target))

    @property
    def depth(self) -> int:
        """How many layers it has where it takes no num_layers: one, or as many as a partial binds; imports it."""
        layers = _bound(self.attribute()).get("num_layers", 1)
        return layers if isinstance(layers, int) else 1

    def attribute(self) -> Any:
        """What the target names, its module imported.

        Raises:
            HarnessError: there is no such module or attribute.
            whatever importing it raises.
        """
        name, _, path = self.target.partition(":")
        found: Any = self._module(name)
        for part in path.split("."):
            try:
                found = getattr(found, part)
            except AttributeError as error:
                raise HarnessError(f"'{self.target}': there is no '{part}' in '{name}'; see to its spelling") from error
        if not callable(found):
            kind = printable(type(found).__name__)
            raise HarnessError(f"'{self.target}' is a {kind}, which cannot be called; {TAKES}")
        return found

    def _module(self, name: str) -> Any:
        top = name.partition(".")[0]
        spec = PathFinder.find_spec(top, [self.folder]) if self.folder else None
        if self.folder and self.folder not in sys.path:
            sys.path.append(self.folder)
        if spec and spec.loader:
            known = sys.modules.get(top)
            if known is None:
                module = sys.modules[top] = importlib.util.module_from_spec(spec)
                try:
                    spec.loader.exec_module(module)
                except BaseException:
                    sys.modules.pop(top, None)
                    raise
            elif getattr(known, "__file__", None) != spec.origin:
                raise HarnessError(f"'{self.target}': another module '{top}' is loaded already; rename yours")
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != top and not (error.name and name.startswith(error.name)):
                raise  # it is there, and needs what is not
            where = f"in '{self.folder}' and among what is installed" if self.folder else "among what is installed"
            raise HarnessError(f"'{self.target}': no module '{error.name}' {where}; see to its spelling") from error


def check_target(target: str) -> str:
    """Refuse what is no `module:attribute`.

    Raises:
        HarnessError: saying how to write it.
    """
    if not re.fullmatch(TARGET, target):
        raise HarnessError(f"'{printable(target)}': write module:attribute, such as my_layer:build")
    return target


def target_of(build: Any) -> str:
    """`module:attribute` of a class or function, by which another process finds the same.

    Raises:
        HarnessError: it has no such name, as a lambda, an inner function or what stands in a script has none.
    """
    module, path = getattr(build, "__module__", None), getattr(build, "__qualname__", None)
    if isinstance(module, str) and isinstance(path, str) and module != "__main__":
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is build:
            return f"{module}:{path}"
    raise HarnessError(
        f"{printable(path or type(build).__name__)} cannot be found by another process; put it at the top of a module "
        "that can be imported, or name it as 'module:attribute'"
    )


def sizes_taken(builder: Callable[..., Any], target: str) -> tuple[str, ...]:
    """Which of input_size, hidden_size and num_layers a builder takes; none means that it builds one size.

    Raises:
        HarnessError: it needs something else.
    """
    bound = _bound(builder)
    free = tuple(name for name in SIZES if name not in bound)
    needed = {"input_size", "hidden_size"}
    try:
        parameters = list(inspect.signature(builder).parameters.values())
    except (TypeError, ValueError):  # compiled code may not tell
        parameters = [inspect.Parameter("sizes", inspect.Parameter.VAR_KEYWORD)]
    others: list[str] = []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = free
    else:
        names = {p.name for p in parameters}
        taken = tuple(name for name in free if name in names)
        required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        others = [name for name in required if name not in SIZES]
    if needed <= bound.keys():
        taken = ()
    if others or (taken and not needed <= set(taken)):
        asked = ", ".join(others) if others else f"only {' and '.join(taken)}"
        raise HarnessError(f"'{target}' asks for {asked}; {TAKES}; write a function that does")
    return taken


def _bound(builder: Callable[..., Any]) -> dict[str, Any]:
    """What a partial binds, by name. Arguments of no name are those of a layer: its sizes, in their order."""
    if not isinstance(builder, functools.partial):
        return {}
    try:
        signature = inspect.signature(builder.func)
        bound = dict(signature.bind_partial(*builder.args, **builder.keywords).arguments)
        rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    except (TypeError, ValueError):  # compiled code may not tell, and what cannot be bound fails when it is called
        bound, rest = {"": builder.args}, ""
    unnamed = bound.pop(rest, ()) if rest is not None else ()
    bound |= builder.keywords
    return bound | dict(zip((name for name in SIZES if name not in bound), unnamed, strict=False))


def in_words(size: LayerSize | None) -> str:
    """A size, as errors name it."""
    return f"I={size.input_size} H={size.hidden_size} L={size.num_layers}" if size else "any"


def _is_builder(found: Any) -> bool:
    """Whether calling it gives a layer; whatever else can be called is a layer itself."""
    return inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, functools.partial)
