"""Export one layer to ONNX and prove the graph against torch: `python -m harness_onnx.export --model NAME ...`.

Runs in a process of its own, for two reasons. torch 2.13's exporter freezes the time axis of an `nn.LSTM` silently
when the process has exported one before, and a process that runs sessions must not hold torch's threads.

Writes to the folder `--out`: `graph.onnx` and `record.json`, or `verdict.json` with the reason why not.
"""

from __future__ import annotations

import argparse
import ast
import collections
import inspect
import itertools
import json
import re
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer
from torch import Tensor, nn

import harness
from harness_onnx.graph import LAYER, LOOPS, fill, input_names, load, nodes, output_names, parameter_shapes

BATCHES = (1, 2, 3, 32)
TIMES = (1, 3, 7, 20)
"""The grid every graph is proved on. It is exported at one point of it, so a frozen or unrolled axis cannot pass."""

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
"""Largest difference from torch, absolute and relative. Rounding gives 1e-7 and 1e-16, a frozen axis 1e-1."""


READABLE = "so that TorchScript can read it, or with torch's scan; see docs/plugins.md"

LONGEST_REASON = 200
"""What an exporter says may be long; the log has all of it."""


class ExportError(Exception):
    """One route does not work for this layer. The text is the reason."""


class MissingOperatorError(ExportError):
    """ONNX Runtime has not got an operator of the graph in this dtype."""


class Flat(nn.Module):
    """A layer whose state is spread out: `(x, *state) -> (y, *state)`, because a graph knows no nested tuples.

    A layer with one state array takes and gives it as `torch.nn.GRU` does: a tensor, not a tuple of one.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, last = self.layer(x, state if len(state) > 1 else state[0])
        return (y, *last) if len(state) > 1 else (y, last)


class Export:
    """The export of one model at one size and dtype.

    Args:
        model: a torch model.
        size: the layer's size.
        dtype: `float32` or `float64`.
        folder: where the routes write.
    """

    def __init__(self, model: harness.Model, size: harness.LayerSize, dtype: str, folder: Path) -> None:
        self.model = model
        self.size = size
        self.dtype_name = dtype
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.tolerance = TOLERANCE[dtype]
        self.path = folder / "graph.onnx"
        self.unproved = folder / "unproved.onnx"
        self.inputs = input_names(model.architecture)
        self.outputs = output_names(model.architecture)
        # An axis of 1, or two axes of one length, would be taken for constants or for each other.
        sizes = {size.input_size, size.hidden_size, size.hidden_size * model.architecture.directions, size.num_layers}
        self.batch, self.time = [n for n in (3, 7, 5, 11, 9, 13, 15) if n not in sizes][:2]

    def layer(self, seed: int) -> nn.Module:
        """A new layer with random parameters, no two alike, so that an exporter cannot merge equal ones."""
        size = self.size
        layer = self.model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        if not isinstance(layer, nn.Module):
            raise harness.HarnessError(f"build gives a {type(layer).__name__}, not a torch.nn.Module")
        layer = layer.to(self.dtype).eval()
        generator = torch.Generator().manual_seed(seed)
        bound = size.hidden_size**-0.5
        with torch.no_grad():
            for parameter in layer.parameters():
                values = torch.empty(parameter.shape, dtype=self.dtype).uniform_(-bound, bound, generator=generator)
                parameter.copy_(values)
        return layer

    def arguments(self, batch: int, length: int) -> tuple[Tensor, ...]:
        """Random x (B, T, I) and states (L*D, B, H)."""
        size = self.size
        state = (size.num_layers * self.model.architecture.directions, batch, size.hidden_size)
        shapes = [(batch, length, size.input_size), *(state for _ in self.inputs[1:])]
        return tuple(torch.randn(shape, dtype=self.dtype) for shape in shapes)

    def check_layer(self) -> None:
        """Call the layer in torch itself, before an exporter can wrap what it says.

        Raises:
            harness.HarnessError: what the layer raised, or that it does not run.
        """
        try:
            layer = Flat(self.layer(seed=1)).eval()
            with torch.no_grad():
                layer(*self.arguments(self.batch, self.time))
        except harness.HarnessError:
            raise
        except Exception as error:
            raise harness.HarnessError(f"the layer does not run in torch: {first_line(error)}") from error

    def dynamo(self) -> onnx.ModelProto:
        """Route 1: torch.export. The names of the free axes are strings: with those it refuses rather than freezes."""
        states = tuple({1: "batch"} for _ in self.inputs[1:])
        torch.onnx.export(
            Flat(self.layer(seed=1)).eval(),
            self.arguments(self.batch, self.time),
            self.unproved,
            dynamo=True,
            optimize=False,  # or parameters would be folded away, and with them their names
            dynamic_shapes=({0: "batch", 1: "time"}, states),
            input_names=self.inputs,
            output_names=self.outputs,
            external_data=False,
            verbose=False,
        )
        return onnx.load(self.unproved)

    def script(self) -> onnx.ModelProto:
        """Route 2: TorchScript, which keeps a plain Python loop over time as a loop, and torch's older exporter."""
        layer = self.layer(seed=1)
        annotate(layer, len(self.inputs) - 1, self.path.parent)
        arguments = self.arguments(self.batch, self.time)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`?torch\.jit\.(script|trace)", DeprecationWarning)
            flat = torch.jit.trace(Flat(torch.jit.script(layer)).eval(), arguments, check_trace=False)  # type: ignore[no-untyped-call]
        axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}}
        torch.onnx.export(
            flat,
            arguments,
            self.unproved,
            dynamo=False,
            do_constant_folding=False,  # or parameters would be folded away, and with them their names
            dynamic_axes=axes | {name: {1: "batch"} for name in (*self.inputs[1:], *self.outputs[1:])},
            input_names=self.inputs,
            output_names=self.outputs,
        )
        return onnx.load(self.unproved)

    def check_structure(self, graph: onnx.ModelProto) -> None:
        """Raises ExportError if an axis is frozen or no operator walks through time."""
        for value in graph.graph.input:
            dims = value.type.tensor_type.shape.dim
            free = (0, 1) if value.name == "x" else (1,)
            for axis in free:
                if not dims[axis].dim_param:
                    raise ExportError(f"axis {axis} of '{value.name}' was frozen at {dims[axis].dim_value}")
        names = [value.name for value in graph.graph.input]
        if names != self.inputs:
            raise ExportError(f"the graph takes {', '.join(names)} instead of {', '.join(self.inputs)}")
        if LOOPS.isdisjoint(node.op_type for node in nodes(graph)):
            raise ExportError(f"the loop over time was unrolled: the graph holds none of {', '.join(sorted(LOOPS))}")

    def repair(self, graph: onnx.ModelProto) -> None:
        """Declare the true shapes of the outputs, where torch leaves the example's length; drop its stack traces."""
        size, directions = self.size, self.model.architecture.directions
        state = (size.num_layers * directions, "batch", size.hidden_size)
        for value in graph.graph.output:
            shape = ("batch", "time", size.hidden_size * directions) if value.name == "y" else state
            element = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, shape))
        del graph.graph.value_info[:]
        for node in nodes(graph):
            del node.metadata_props[:]
            node.doc_string = ""

    def check_numbers(self, graph: onnx.ModelProto) -> float:
        """Compare with torch over the whole grid, with other weights than the exported ones.

        Returns:
            The largest difference, absolute or relative, whichever is smaller.

        Raises:
            ExportError: the graph does not run, or differs.
        """
        layer = self.layer(seed=2)
        try:
            fill(graph, {name: value.detach().numpy() for name, value in layer.named_parameters()})
        except harness.HarnessError as error:
            raise ExportError(str(error)) from error
        flat = Flat(layer).eval()
        worst = 0.0
        try:
            session = load(graph, 1, ["CPUExecutionProvider"])
            for batch, length in itertools.product(BATCHES, TIMES):
                arguments = self.arguments(batch, length)
                with torch.no_grad():
                    expected = [value.numpy() for value in flat(*arguments)]
                feed = {name: value.numpy() for name, value in zip(self.inputs, arguments, strict=True)}
                for name, mine, theirs in zip(self.outputs, session.run(None, feed), expected, strict=True):
                    where = f"'{name}' at batch {batch}, length {length}"
                    if mine.shape != theirs.shape:
                        raise ExportError(f"{where} is {mine.shape} instead of {theirs.shape}")
                    difference = np.abs(mine - theirs) / np.maximum(1, np.abs(theirs))
                    if not difference.max() <= self.tolerance:  # NaN is a failure too
                        raise ExportError(f"{where} differs from torch by {difference.max():.1e}")
                    worst = max(worst, float(difference.max()))
        except ExportError:
            raise
        except Exception as error:
            # ONNX Runtime's exceptions share no base class but Exception.
            reason = first_line(error)
            if "not support" in reason or "NOT_IMPLEMENTED" in reason:
                operators = re.findall(r"(?:running|implementation for) (\w+)", reason)  # the innermost stands last
                missing = f"ONNX Runtime's {operators[-1] if operators else 'graph'} has no {self.dtype_name}"
                raise MissingOperatorError(missing) from error
            raise ExportError(f"ONNX Runtime: {reason}") from error
        return worst

    def run(self) -> dict[str, Any]:
        """Try the routes in order; the first graph that passes every check is left at `path`.

        Returns:
            What is worth knowing about the graph (`record.json`).

        Raises:
            harness.Unsupported: no route passed. The text gives the reason that matters and what to do; the reasons
                of every route are printed.
            harness.HarnessError: the layer itself fails, or what it raised.
        """
        self.check_layer()
        routes: list[Callable[[], onnx.ModelProto]] = [self.dynamo, self.script]
        refused: dict[str, Exception] = {}
        for route in routes:
            start = time.perf_counter()
            try:
                exported = route()
                seconds = time.perf_counter() - start
                self.check_structure(exported)
                graph = fold(exported)
                self.repair(graph)
                difference = self.check_numbers(graph)
            except Exception as error:  # the exporters raise anything; the log has all of it
                print(f"Route {route.__name__}:\n{traceback.format_exc()}", flush=True)
                refused[route.__name__] = error
                continue
            onnx.save(graph, self.path)
            operators = collections.Counter(node.op_type for node in nodes(graph))
            return {
                "model": self.model.name,
                "route": route.__name__,
                "opset": next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")),
                "operators": dict(sorted(operators.items())),
                "nodes": operators.total(),
                "size_bytes": self.path.stat().st_size,
                "export_s": round(seconds, 3),
                "largest_difference": difference,
                "example_batch": self.batch,
                "example_time": self.time,
                "refused_routes": [f"{name}: {first_line(error)}" for name, error in refused.items()],
            }
        raise harness.Unsupported(self.refusal(refused))

    def refusal(self, refused: Mapping[str, Exception]) -> str:
        """The one sentence that matters of why every route was refused, and what to do."""
        for error in refused.values():
            for cause in causes(error):
                if isinstance(cause, harness.HarnessError):  # the layer's own words: it knows that it is exported
                    return str(cause)
        start = f"cannot be exported to ONNX in {self.dtype_name}"
        for error in refused.values():
            if isinstance(error, MissingOperatorError):
                step = (
                    "write the loop" if self.dtype_name == "float32" else "use float32, or write the cell and the loop"
                )
                return f"{start}: {error}; {step} {READABLE}"
        last = refused["script"]
        text = first_line(last)
        here = re.search(r"^(.*\S.*)\n[ ~]*~ *<--- HERE", str(last), re.MULTILINE)  # where TorchScript stopped
        if here:
            words = text.removeprefix("RuntimeError: ").partition(' File "')[0].rstrip(".:")
            text = f"TorchScript stops at `{here[1].strip()}`: {words}"
        if len(text) > LONGEST_REASON:
            text = f"{text[:LONGEST_REASON]}..."
        return f"{start}: {text}; write the loop {READABLE}"


def annotate(layer: nn.Module, states: int, folder: Path) -> None:
    """Give this layer's `forward` the annotations that TorchScript needs, from the contract.

    TorchScript reads annotations from the source text, takes an argument without one for a tensor, and cannot index a
    state that may be None. An export always gives a state, so it never is. The method is written anew, to a file in
    `folder`, and printed. Only this one layer gets it, not its class.
    """
    kind = type(layer)
    forward: Any = kind.forward
    tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef):
        raise ExportError("its forward is not written as a method")
    arguments = function.args.args[1:]
    state = f"Tuple[{', '.join(['Tensor'] * states)}]" if states > 1 else "Tensor"
    for place, (argument, hint) in enumerate(zip(arguments, ("Tensor", state, "Optional[Tensor]"), strict=False)):
        if argument.annotation is None or place == 1:
            argument.annotation = ast.parse(hint, mode="eval").body
    function.args.defaults = function.args.defaults[-len(arguments[2:]) :] if arguments[2:] else []
    function.returns = function.returns or ast.parse(f"Tuple[Tensor, {state}]", mode="eval").body
    path = folder / "forward.py"
    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    print(f"The forward that TorchScript reads ({path.name}):\n\n{path.read_text()}\n", flush=True)
    flags = annotations.compiler_flag  # the names need not exist in the layer's module
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec", flags, dont_inherit=True), forward.__globals__, names)
    layer.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, "forward": names[function.name]})


def fold(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Fold what depends on sizes only, never on a parameter.

    torch cuts the weights of an `nn.LSTM` at places it computes from the shape of the state. ONNX Runtime folds those
    cuts, and packs the weights in advance, only if the places are constants: 105 against 80 microseconds at B=1.
    """
    parameters = {LAYER + name for name in parameter_shapes(graph)}
    model = onnx_ir.serde.deserialize_model(graph)

    def should_fold(node: onnx_ir.Node) -> bool | None:
        return False if any(value is not None and value.name in parameters for value in node.inputs) else None

    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=should_fold)
    RemoveUnusedNodesPass()(model)
    return onnx_ir.serde.serialize_model(model)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def first_line(error: BaseException) -> str:
    """The first line of the error that caused it all, with the second if the first only announces it."""
    if isinstance(error, ExportError):
        return str(error)
    *_, root = causes(error)
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    text = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    return f"{type(root).__name__}: {text}"


def main() -> int:
    """Export, write the result to `--out`, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness_onnx.export", description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in the catalog")
    parser.add_argument("--input-size", type=int, required=True)
    parser.add_argument("--hidden-size", type=int, required=True)
    parser.add_argument("--num-layers", type=int, required=True)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), required=True)
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    given = parser.parse_args()
    torch.set_num_threads(1)  # torch and ONNX Runtime side by side: their threads would fight
    size = harness.LayerSize(given.input_size, given.hidden_size, given.num_layers)
    try:
        model = harness.discover().model(given.model)
        record = Export(model, size, given.dtype, given.out).run()
    except harness.HarnessError as error:
        traceback.print_exc()
        verdict = {"reason": " ".join(str(error).split()), "unsupported": isinstance(error, harness.Unsupported)}
        (given.out / "verdict.json").write_text(json.dumps(verdict))
        return 1
    (given.out / "record.json").write_text(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
