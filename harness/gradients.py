"""Gradient parity: does a training step move the weights where the oracle's loss says it should?

One step of plain gradient descent with learning rate 1 moves a parameter by exactly its gradient, so any trainer shows
its gradients without being asked for them. They are held against central differences of the float64 oracle's loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import (
    Inputs,
    LayerSize,
    Model,
    Recipe,
    SessionOptions,
    Split,
    TaskKind,
    Trainable,
    Trainer,
)
from harness.parity import probe_weights

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray

TOLERANCE = 1e-3  # of an array's gradient norm; float32 rounding stays near 1e-5, a mistake is of the order of 1
FLOOR = 1e-2  # an array's norm counts as at least this part of the whole gradient's
DIFFERENCE = 1e-4  # step of the central difference, along a direction of norm 1


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """One thing that a training step was asked.

    Attributes:
        what: `loss`, `gradient of` a parameter, or, of the trainer that was timed, `loss after timing` and
            `movement after timing`.
        error: how far it was from the oracle; infinite where it was not finite.
        allowed: the largest error that passes.
        expected: the oracle's value.
    """

    what: str
    error: float
    allowed: float
    expected: float


def check_gradients(
    model: Model, runtime: Trainable, kind: TaskKind, outputs: int, options: SessionOptions
) -> list[GradientCheck]:
    """Take one step and compare the loss before it, and the slope along one direction per parameter array.

    Each direction mixes the gradient that was taken and half as much noise, so that both a wrong size and a missing
    part show. The comparison is made in the model's own parameters; the doors of the model lead there.

    Raises:
        whatever the model or runtime raises.
    """
    rng = np.random.default_rng(0)
    size = options.size
    features = model.architecture.directions * size.hidden_size
    bound = 1 / math.sqrt(features)
    weights = probe_weights(model.architecture, size, options.dtype)
    for name, shape in (("head.weight", (outputs, features)), ("head.bias", (outputs,))):
        weights[name] = rng.uniform(-bound, bound, shape).astype(options.dtype)
    x = rng.standard_normal((4, 9, size.input_size)).astype(options.dtype)
    targets: Array = rng.integers(outputs, size=4)
    if kind == "regression":
        targets = rng.standard_normal((4, outputs)).astype(options.dtype)
    batch = Split(x, targets)

    recipe = Recipe(size.hidden_size, size.num_layers, optimizer="sgd", learning_rate=1.0)
    trainer = runtime.open_trainer(model, weights, kind, recipe, options)
    before = _parameters(model, trainer.weights())
    loss = float(trainer.step(trainer.prepare(batch)))
    after = _parameters(model, trainer.weights())

    expected = _oracle_loss(model, kind, size, before, batch)
    checks = [_check("loss", loss - expected, TOLERANCE * abs(expected), expected)]
    gradient = {name: before[name] - after[name] for name in before}
    norms = {name: float(np.linalg.norm(array)) for name, array in gradient.items()}
    whole = math.sqrt(sum(norm**2 for norm in norms.values()))
    for name, taken in gradient.items():
        noise = rng.standard_normal(taken.shape)
        direction = noise / (2 * np.linalg.norm(noise)) + (taken / norms[name] if norms[name] else 0)
        direction *= DIFFERENCE / np.linalg.norm(direction)
        ahead, behind = (
            _oracle_loss(model, kind, size, before | {name: before[name] + sign * direction}, batch) for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * DIFFERENCE)
        error = float(np.sum(taken * direction)) / DIFFERENCE - slope
        checks.append(_check(f"gradient of {name}", error, TOLERANCE * max(norms[name], FLOOR * whole), slope))
    return checks


def check_timed_trainer(
    model: Model, trainer: Trainer, kind: TaskKind, size: LayerSize, batch: Split
) -> list[GradientCheck]:
    """Ask the very trainer that was timed for one more step: its loss must be the oracle's, its weights must move."""
    before = _parameters(model, trainer.weights())
    loss = float(trainer.step(trainer.prepare(batch)))
    after = _parameters(model, trainer.weights())
    expected = _oracle_loss(model, kind, size, before, batch)
    moved = math.sqrt(sum(float(np.sum((after[name] - before[name]) ** 2)) for name in before))
    return [
        _check("loss after timing", loss - expected, TOLERANCE * abs(expected), expected),
        _check("movement after timing", 0.0 if 0 < moved < math.inf else math.inf, 0.0, moved),
    ]


def judge_gradients(checks: Sequence[GradientCheck]) -> str:
    """Why a training step is wrong, or an empty string if it is right."""
    failed = [check for check in checks if not check.error <= check.allowed]
    if not failed:
        return ""
    worst = max(failed, key=lambda check: check.error / check.allowed if check.allowed else math.inf)
    text = f"off by {worst.error:.1e} where the oracle has {worst.expected:.1e}"
    return f"training step: {worst.what} is {text} ({len(failed)} of {len(checks)} checks failed)"


def _check(what: str, error: float, allowed: float, expected: float) -> GradientCheck:
    return GradientCheck(what, math.inf if math.isnan(error) else abs(error), allowed, expected)


def _oracle_loss(
    model: Model, kind: TaskKind, size: LayerSize, parameters: Mapping[str, FloatArray], batch: Split
) -> float:
    """The loss of the float64 oracle under the model's own parameters."""
    standard = model.from_parameters({k: v for k, v in parameters.items() if not k.startswith("head.")})
    outputs = model.architecture.reference(standard, Inputs(batch.x.astype(np.float64)), size)
    summary = np.concatenate(list(outputs.state[0][-model.architecture.directions :]), axis=1)
    predictions = summary @ parameters["head.weight"].T + parameters["head.bias"]
    return _loss(kind, predictions, batch.targets)


def _parameters(model: Model, weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    own = model.to_parameters({name: array for name, array in exact.items() if not name.startswith("head.")})
    return {**own, **{name: array for name, array in exact.items() if name.startswith("head.")}}


def _loss(kind: TaskKind, predictions: FloatArray, targets: Array) -> float:
    """Cross-entropy with the natural logarithm, or mean squared error; the mean over the batch."""
    if kind == "regression":
        return float(np.mean((predictions - targets) ** 2))
    shifted = predictions - predictions.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-np.mean(log_probability[np.arange(len(targets)), targets]))
