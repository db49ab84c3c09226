"""`harness.wrap`: a model, its architecture and its oracle, all made of one layer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract import NAME, Architecture, HarnessError, LayerSize, Model, one_line, printable
from harness.named_layer import NamedLayer, check_target, in_words, target_of
from harness.oracle import Oracle, Subject

if TYPE_CHECKING:
    from harness.contract import FloatArray

MOST_NAMES = 6  # of weights, in a reason


def wrap(
    build: Callable[..., Any] | str,
    *,
    name: str | None = None,
    framework: str | None = None,
    directions: int = 1,
    state_names: Sequence[str] = ("h", "c"),
    size: LayerSize | None = None,
    weights: str | Path | None = None,
    description: str = "",
) -> Model:
    """A model of a layer whose architecture is the layer itself: its reference is the layer in float64.

    The reference is computed in a process of its own, by an installed runtime that trains the framework. So `build`
    must be found by another process: by its module and name. Standard weights are the layer's own, under its own names.

    Args:
        build: `build(input_size=, hidden_size=, num_layers=)`, or `build()` for a layer of one size, gives a layer that
            is called as `layer(x, state=None) -> (y, state)`: x (B, T, I), y (B, T, D*H), state arrays (L*D, B, H), a
            tuple, or one array where there is one. Or the text `module:attribute`, which is imported when a layer is
            built; the attribute may be a finished layer too.
        name: of the model and its architecture; None for one made of the module's and the attribute's.
        framework: what the layer is made of; None is for a class: the package that it is in the end derived from.
        directions: 1, or 2 for a bidirectional layer.
        state_names: one name per state array, the summary first.
        size: the only size it has, where `build` takes none.
        weights: a safetensors file with the layer's own names, to check, time and score with; with `head.weight`
            (outputs, D*H) and `head.bias` the model is scored as it is, and never trained.
        description: one line for `harness list`.

    Raises:
        HarnessError: `build` cannot be found by another process, or its framework cannot be told.
    """
    target = check_target(build) if isinstance(build, str) else target_of(build)
    framework = framework or _framework(build, target)
    layer = NamedLayer(target, size=size)
    subject = Subject(name or name_of(target), layer, framework, "", tuple(state_names), directions)
    return model_of(subject, GivenWeights(str(weights)) if weights else None, description)


def model_of(
    subject: Subject, weights: GivenWeights | None = None, description: str = "", oracle: Oracle | None = None
) -> Model:
    """The model of an oracle's subject; of a new oracle, unless one is there already."""
    oracle = oracle or Oracle(subject)
    oracle.know(subject)

    def given(size: LayerSize) -> Mapping[str, FloatArray]:
        assert weights
        return weights.read(subject.name, oracle.weight_shapes(size), size)

    architecture = Architecture(
        subject.name,
        subject.directions,
        oracle.weight_shapes,
        oracle.reference,
        subject.state_names,
        given if weights else None,
    )
    return Model(
        subject.name,
        architecture,
        subject.framework,
        subject.layer,
        yardstick=True,
        description=description or f"{subject.layer.target}, held against itself in float64",
        size=subject.layer.size,
    )


@dataclass(frozen=True)
class GivenWeights:
    """A safetensors file with weights.

    Attributes:
        path: where it is.
        sha256: of its bytes, if it must be those.
    """

    path: str
    sha256: str = ""

    def read(self, model: str, shapes: Mapping[str, tuple[int, ...]], size: LayerSize) -> dict[str, FloatArray]:
        """Its arrays, a head's included.

        Args:
            model: whose they are to be.
            shapes: the names and shapes of the layer's own.
            size: of that layer.

        Raises:
            HarnessError: it cannot be read, has changed, or does not fit; the text names the first that do not.
        """
        found = self.arrays()
        own = {name: array.shape for name, array in found.items() if not name.startswith("head.")}
        problems = {
            "missing": sorted(shapes.keys() - own.keys()),
            "unexpected": sorted(own.keys() - shapes.keys()),
            "of another shape": [
                f"{name} {own[name]} for {shapes[name]}"
                for name in sorted(shapes.keys() & own.keys())
                if own[name] != shapes[name]
            ],
        }
        texts = [f"{problem}: {_some(names)}" for problem, names in problems.items() if names]
        if texts:
            raise HarnessError(
                f"weights '{self.path}' do not fit model '{model}' of size {in_words(size)} ({'; '.join(texts)}); give "
                "the layer's own state_dict, and the size it has"
            )
        return found

    def arrays(self) -> dict[str, FloatArray]:
        """Everything in the file.

        Raises:
            HarnessError: it cannot be read, is not safetensors, has changed, or holds something that is no real number.
        """
        from safetensors.numpy import load

        try:
            data = Path(self.path).read_bytes()
        except OSError as error:
            raise HarnessError(f"weights '{self.path}' cannot be read: {error.strerror}") from error
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            raise HarnessError(
                f"weights '{self.path}' have changed since the run began; put them back, or start a new run"
            )
        try:
            found = load(data)
        except Exception as error:  # its errors share no base class
            raise HarnessError(
                f"weights '{self.path}' cannot be read as safetensors ({one_line(error)}); write them with "
                "safetensors.torch.save_file(layer.state_dict(), path), in float32 or float64"
            ) from error
        if others := [f"{printable(name)} ({array.dtype})" for name, array in found.items() if array.dtype.kind != "f"]:
            raise HarnessError(f"weights '{self.path}' hold {_some(others)}; weights are real numbers")
        return found


def name_of(target: str) -> str:
    """A model's name made of a target's last module and attribute: `my_layer.build` of `mine.my_layer:build`."""
    module, _, attribute = target.partition(":")
    name = f"{module.rpartition('.')[2]}.{attribute}".lower().lstrip("_")[:64]
    if not re.fullmatch(NAME, name):
        raise HarnessError(f"'{target}' makes no name for a model; give the attribute one of a-z, 0-9 and '_'")
    return name


def _framework(build: Any, target: str) -> str:
    """The package that a class is in the end derived from."""
    bases = build.__mro__[1:-1] if isinstance(build, type) else ()
    packages = [base.__module__.partition(".")[0] for base in bases]
    own = target.partition(":")[0].partition(".")[0]
    others = [package for package in packages if package not in (own, "typing", "abc", "builtins")]
    if not others:
        raise HarnessError(f"'{target}' does not tell what its layer is made of; say framework=")
    return others[-1]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:MOST_NAMES])
    return shown + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
