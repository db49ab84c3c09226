"""What strangers install: plugins written into a folder, and an LSTM of our own for them to give, right or wrong.

Nothing here needs torch or one of our own plugins. A `World` is a folder on the path that hides every other plugin,
in this process and in the workers, so that a test means the same whatever else is installed.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import harness
from harness import LSTM, Data, Inputs, LayerSize, Model, Outputs, Recipe, SessionOptions, Split, Task
from harness.catalog import Catalog, discover
from harness.contract import TaskKind
from harness.reference import lstm

if TYPE_CHECKING:
    import pytest  # not imported where a worker imports this

    from harness.contract import FloatArray

HIDE_THE_OTHERS = """
import importlib.metadata
original = importlib.metadata.distributions
class WithoutPlugins:
    def __init__(self, distribution):
        self.distribution = distribution
    def __getattr__(self, name):
        return getattr(self.distribution, name)
    @property
    def entry_points(self):
        points = self.distribution.entry_points
        return importlib.metadata.EntryPoints(point for point in points if point.group != "harness")
def distributions(**wanted):
    for found in original(**wanted):
        yield found if str(found.locate_file("")) == {folder!r} else WithoutPlugins(found)
importlib.metadata.distributions = distributions
"""

# What a machine attains takes a run some 2 s to measure; workers of tests measure little of it.
MEASURE_LITTLE = """
import importlib.machinery, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name != "harness.engine.machine":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module
        def load_and_shorten(module):
            load(module)
            module.PRODUCT_SIZES, module.PRODUCT_SECONDS = (256, 384), 0.005
            module.WORKING_SETS_BYTES, module.READ_SECONDS = (2**14, 2**16, 2**18, 2**20), 0.005
        spec.loader.exec_module = load_and_shorten
        return spec
sys.meta_path.insert(0, Finder())
"""

DISTRIBUTIONS = importlib.metadata.distributions
PLAIN = """
import harness
from strangers import TINY, PlainRuntime, plain_model

@harness.hookimpl
def harness_models():
    return [plain_model(name, habit) for name, habit in {habits!r}.items()]

@harness.hookimpl
def harness_runtimes():
    return [PlainRuntime()]

@harness.hookimpl
def harness_tasks():
    return [TINY]
"""

QUICK = """
seeds = 2
trial_seconds = 60
[latency]
slices = 2
instances = 2
calls = 10
seconds = 0.01
offline_batch = 4
"""

CALLS_BEFORE_TIMING = 13  # at most: a first call, ten points of the grid, and the two shapes that are timed
HABITS = {
    "ignores its state": "every answer is that of a zero state",
    "exits": "os._exit at the first call",
    "is killed": "SIGKILL at the first call",
    "raises": "a ValueError at the first call",
    "refuses": "Unsupported when it is opened",
    "hangs": "never returns from its first call",
    "dies while timed": "os._exit once it was called more often than it is before timing",
    "dies offline": "os._exit at the fifth call in a row with a batch of four, which only timing makes",
    "raises offline": "a MemoryError instead",
    "dies after timing": "os._exit at the first call with a state after that",
    "is wrong later": "ignores its state from then on",
    "is wrong in company": "ignores its state while a layer of another habit lives in its process",
    "is wrong when opened again": "ignores its state unless it is the first of its kind in its process",
    "dies while timed again": "os._exit once it was called more often than that, unless it is the first in its process",
    "diverges": "is right, and its training loss is not a number",
    "trains wrongly": "is right, and its training step moves everything twice as far as it should",
}


class World:
    """A folder of strangers' plugins: the only ones that this process and its workers find."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        text = HIDE_THE_OTHERS.format(folder=str(folder))
        (folder / "sitecustomize.py").write_text(text + MEASURE_LITTLE, encoding="utf-8")
        names: dict[str, Any] = {}
        exec(text.replace("importlib.metadata.distributions = distributions", ""), names)
        names["original"] = DISTRIBUTIONS  # and not those of a world around this one
        monkeypatch.setattr(importlib.metadata, "distributions", names["distributions"])
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parent)]))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def add(self, name: str, source: str, *, distribution: str = "", metadata: str | None = None) -> None:
        """Install a plugin: a module, its metadata and its entry point of group `harness`."""
        module = "stranger_" + name.replace("-", "_")
        distribution = distribution or f"stranger-{name}"
        sys.modules.pop(module, None)
        (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = self.folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[harness]\n{name} = {module}\n", encoding="utf-8")

    def add_plain(self, name: str = "plain", **habits: str) -> None:
        """Install a plugin that gives a runtime `plain`, a task `tiny` and models by name, each with its habit."""
        models = {model.replace("_", "-"): habit for model, habit in habits.items()} or {"plain-lstm": ""}
        self.add(name, PLAIN.format(habits=models))

    def catalog(self) -> Catalog:
        return discover()


class PlainLayer:
    """An LSTM layer of framework `plain`: called with weights and inputs, it gives outputs."""

    built: ClassVar[Counter[str]] = Counter()  # layers of each habit in this process

    def __init__(self, habit: str, input_size: int, hidden_size: int, num_layers: int) -> None:
        if habit == "refuses":
            raise harness.Unsupported("this model runs on Sundays only")
        self.built[habit] += 1
        self.is_first = self.built[habit] == 1
        self.habit = habit
        self.size = LayerSize(input_size, hidden_size, num_layers)
        self.calls = 0
        self.fours = 0  # calls in a row with a batch of four

    def __call__(self, weights: Mapping[str, FloatArray], inputs: Inputs) -> Outputs:
        self.calls += 1
        late = self.calls > CALLS_BEFORE_TIMING
        if self.habit == "exits" or (self.habit == "dies while timed" and late):
            os._exit(7)
        if self.habit == "dies while timed again" and late and not self.is_first:
            os._exit(10)
        if self.habit == "dies after timing" and late and inputs.state is not None:
            os._exit(8)
        self.fours = self.fours + 1 if len(inputs.x) == 4 else 0
        if self.fours == 5 and self.habit == "dies offline":
            os._exit(9)
        if self.fours >= 5 and self.habit == "raises offline":
            raise MemoryError("too large a batch")
        if self.habit == "is killed":
            os.kill(os.getpid(), 9)
        if self.habit == "raises":
            raise ValueError("a | pipe\nand a <script>")
        while self.habit == "hangs":
            time.sleep(1)
        if (
            self.habit == "ignores its state"
            or (self.habit == "is wrong later" and late)
            or (self.habit == "is wrong when opened again" and not self.is_first)
            or (self.habit == "is wrong in company" and len(self.built) > 1)
        ):
            inputs = Inputs(inputs.x, None, inputs.lengths)
        return lstm(weights, inputs)


def plain_model(name: str = "plain-lstm", habit: str = "", **changes: Any) -> Model:
    assert habit in ("", *HABITS), habit
    return Model(name, LSTM, "plain", partial(PlainLayer, habit), **changes)


@dataclass(frozen=True)
class PlainRuntime:
    """A runtime for framework `plain`, in NumPy, that trains by exact gradients."""

    name: str = "plain"
    frameworks: frozenset[str] = frozenset({"plain"})
    description: str = "NumPy, with gradients by hand"

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> PlainSession:
        if options.device != "cpu":
            raise harness.Unsupported(f"runtime 'plain' has no device '{options.device}'")
        size = options.size
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        return PlainSession(layer, {name: array.astype(options.dtype) for name, array in weights.items()})

    def open_trainer(
        self, model: Model, weights: Mapping[str, FloatArray], kind: TaskKind, recipe: Recipe, options: SessionOptions
    ) -> PlainTrainer:
        size = options.size
        if size.num_layers > 1:
            raise harness.Unsupported(f"runtime '{self.name}' trains one layer, not {size.num_layers}")
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        mistakes = {"diverges": "loss not finite", "trains wrongly": "gradient twice as large"}
        return PlainTrainer(weights, kind, recipe, mistakes.get(layer.habit, ""))

    def initial_weights(self, model: Model, size: LayerSize, seed: int) -> Mapping[str, FloatArray]:
        rng = np.random.default_rng(seed)
        shapes = model.architecture.weight_shapes(size)
        return {name: rng.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


class PlainSession:
    """A session of a plain layer."""

    def __init__(self, layer: PlainLayer, weights: Mapping[str, FloatArray]) -> None:
        self._layer = layer
        self._weights = weights

    def prepare(self, inputs: Inputs) -> Inputs:
        return inputs

    def run(self, prepared: Inputs) -> Outputs:
        return self._layer(self._weights, prepared)

    def fetch(self, raw: Outputs) -> Outputs:
        return raw

    def close(self) -> None:
        pass


TRAINING_MISTAKES = (
    "state detached",
    "c detached",
    "gradient twice as large",
    "gradient 1 % too large",
    "gradient of the sum",
    "gradient clipped",
    "no step",
    "uphill",
    "bias_hh_l0 not trained",
    "weight_hh_l0 not trained",
    "weight_ih_l0 not trained",
    "head.weight not trained",
    "head.bias not trained",
    "loss in bits",
    "loss after the step",
    "loss not finite",
)


class PlainTrainer:
    """Gradient descent for one layer in one direction: backpropagation through time, written out, in float64."""

    def __init__(self, weights: Mapping[str, FloatArray], kind: TaskKind, recipe: Recipe, mistake: str = "") -> None:
        self._dtype = weights["head.bias"].dtype
        self._weights: dict[str, FloatArray] = {name: array.astype(np.float64) for name, array in weights.items()}
        self._kind = kind
        self._rate = recipe.learning_rate
        self._mistake = mistake

    def prepare(self, batch: Split) -> Split:
        return batch

    def step(self, prepared: Split) -> float:
        loss, gradients = self._loss_and_gradients(prepared)
        rate = self._rate * {
            "gradient twice as large": 2,
            "gradient 1 % too large": 1.01,
            "uphill": -1,
            "no step": 0,
        }.get(self._mistake, 1)
        if self._mistake == "gradient of the sum":
            rate *= len(prepared.x)
        if self._mistake == "gradient clipped":
            rate *= 0.1 / float(np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values())))
        for name, gradient in gradients.items():
            if self._mistake != f"{name} not trained":
                self._weights[name] = self._weights[name] - rate * gradient
        if self._mistake == "loss after the step":
            return self._loss_and_gradients(prepared)[0]
        if self._mistake == "loss in bits":
            return loss / float(np.log(2))
        return float("nan") if self._mistake == "loss not finite" else loss

    def weights(self) -> dict[str, FloatArray]:
        return {name: array.astype(self._dtype) for name, array in self._weights.items()}

    def _loss_and_gradients(self, batch: Split) -> tuple[float, dict[str, FloatArray]]:
        w = self._weights
        x = batch.x.astype(np.float64)
        hidden = w["weight_hh_l0"].shape[1]
        h: FloatArray
        c: FloatArray
        h, c = np.zeros((len(x), hidden)), np.zeros((len(x), hidden))
        steps: list[tuple[FloatArray, ...]] = []
        for t in range(x.shape[1]):
            gates = x[:, t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
            a_i, a_f, a_g, a_o = np.split(gates, 4, axis=1)
            i, f, g, o = (_sigmoid(a_i), _sigmoid(a_f), np.tanh(a_g), _sigmoid(a_o))
            new = f * c + i * g
            steps.append((x[:, t], h, c, i, f, g, o, np.tanh(new)))
            h, c = o * np.tanh(new), new
        loss, d_out = _loss(self._kind, h @ w["head.weight"].T + w["head.bias"], batch.targets)
        gradients = {name: np.zeros_like(array) for name, array in w.items()}
        gradients["head.weight"], gradients["head.bias"] = d_out.T @ h, d_out.sum(axis=0)
        d_h: FloatArray
        d_c: FloatArray
        d_h, d_c = d_out @ w["head.weight"], np.zeros_like(c)
        for x_t, h, c, i, f, g, o, tanh_c in reversed(steps):
            d_c = d_c + d_h * o * (1 - tanh_c**2)
            d_gates = np.concatenate(
                [d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2), d_h * tanh_c * o * (1 - o)], axis=1
            )
            gradients["weight_ih_l0"] += d_gates.T @ x_t
            gradients["weight_hh_l0"] += d_gates.T @ h
            gradients["bias_ih_l0"] += d_gates.sum(axis=0)
            gradients["bias_hh_l0"] += d_gates.sum(axis=0)
            d_h, d_c = d_gates @ w["weight_hh_l0"], d_c * f
            if self._mistake == "state detached":
                d_h = np.zeros_like(d_h)
            if self._mistake in ("state detached", "c detached"):
                d_c = np.zeros_like(d_c)
        return loss, gradients


def _sigmoid(a: FloatArray) -> FloatArray:
    result: FloatArray = 1 / (1 + np.exp(-a))
    return result


def _loss(kind: TaskKind, predictions: FloatArray, targets: Any) -> tuple[float, FloatArray]:
    """The mean loss and its gradient with respect to the predictions."""
    if kind == "regression":
        error = predictions - targets
        return float(np.mean(error**2)), 2 * error / error.size
    rows = np.arange(len(predictions))
    probability = np.exp(predictions) / np.exp(predictions).sum(axis=1, keepdims=True)
    loss = float(-np.log(probability[rows, targets]).mean())
    probability[rows, targets] -= 1
    return loss, probability / len(predictions)


def _load_tiny(data_dir: Path | None) -> Data:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5, 3)).astype(np.float32)
    targets = (x[:, -1, 0] > 0).astype(np.int64)
    return Data(Split(x[:20], targets[:20]), Split(x[20:], targets[20:]))


TINY = Task(
    "tiny",
    "classification",
    input_size=3,
    time=5,
    outputs=2,
    load=_load_tiny,
    recipe=Recipe(hidden_size=6, optimizer="sgd", learning_rate=0.5, batch_size=8, epochs=2),
    description="twenty rows",
)
