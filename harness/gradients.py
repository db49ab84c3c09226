"""Gradient parity: does a training step move the weights where the oracle's loss says it should?

One step of plain gradient descent with learning rate 1 moves a parameter by exactly its gradient, so any trainer shows
its gradients without being asked for them. They are held against central differences of the float64 oracle's loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import Inputs, Model, Recipe, SessionOptions, Split, TaskKind, Trainable
from harness.parity import Observation, probe_weights

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray

CASE = "one step of gradient descent"
TOLERANCE = 1e-3  # of an array's gradient norm; float32 rounding stays near 1e-5, a mistake is of the order of 1
FLOOR = 1e-2  # an array's norm counts as at least this part of the whole gradient's
DIFFERENCE = 1e-4  # step of the central difference, along a direction of norm 1


def observe_gradients(
    model: Model, runtime: Trainable, kind: TaskKind, outputs: int, options: SessionOptions
) -> list[Observation]:
    """Take one step and compare the loss before it, and the slope along one direction per parameter array.

    Each direction mixes the gradient that was taken and half as much noise, so that both a wrong size and a
    missing part show. The comparison is made in the model's own parameters; the doors of the model lead there.

    Returns:
        one observation for the loss and one per parameter array. `rmse` is the difference as a part of what is allowed
        (above 1 fails), `max_abs_error` the difference itself, `reference_rms` the oracle's value.

    Raises:
        whatever the model or runtime raises.
    """
    rng = np.random.default_rng(0)
    size = options.size
    features = model.architecture.directions * size.hidden_size
    bound = 1 / math.sqrt(features)
    head = {"head.weight": (outputs, features), "head.bias": (outputs,)}
    weights = probe_weights(model.architecture, size)
    weights |= {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in head.items()}
    x = rng.standard_normal((4, 9, size.input_size)).astype(options.dtype)
    targets: Array = rng.integers(outputs, size=4)
    if kind == "regression":
        targets = rng.standard_normal((4, outputs)).astype(options.dtype)
    batch = Split(x, targets)

    recipe = replace(Recipe(size.hidden_size, size.num_layers), optimizer="sgd", learning_rate=1.0)
    trainer = runtime.open_trainer(model, weights, kind, recipe, options)
    before = _parameters(model, trainer.weights())
    loss = trainer.step(trainer.prepare(batch))
    after = _parameters(model, trainer.weights())

    def oracle(parameters: Mapping[str, FloatArray]) -> float:
        standard = model.from_parameters({k: v for k, v in parameters.items() if not k.startswith("head.")})
        outputs_ = model.architecture.reference(standard, Inputs(x.astype(np.float64)), size)
        summary = np.concatenate(list(outputs_.state[0][-model.architecture.directions :]), axis=1)
        return _loss(kind, summary @ parameters["head.weight"].T + parameters["head.bias"], targets)

    expected = oracle(before)
    observations = [_observation("loss", loss - expected, TOLERANCE * abs(expected), expected)]
    gradient = {name: before[name] - after[name] for name in before}
    norms = {name: float(np.linalg.norm(array)) for name, array in gradient.items()}
    whole = math.sqrt(sum(norm**2 for norm in norms.values()))
    for name, taken in gradient.items():
        noise = rng.standard_normal(taken.shape)
        direction = noise / (2 * np.linalg.norm(noise)) + (taken / norms[name] if norms[name] else 0)
        direction /= np.linalg.norm(direction)
        ahead, behind = (oracle(before | {name: before[name] + s * DIFFERENCE * direction}) for s in (1, -1))
        slope = (ahead - behind) / (2 * DIFFERENCE)
        allowed = TOLERANCE * max(norms[name], FLOOR * whole)
        observations.append(
            _observation(f"gradient of {name}", float(np.sum(taken * direction)) - slope, allowed, slope)
        )
    return observations


def _observation(part: str, error: float, allowed: float, expected: float) -> Observation:
    relative = abs(error) / allowed if allowed else math.inf
    if math.isnan(relative):
        return Observation(CASE, part, math.inf, math.inf, abs(expected), "not finite")
    return Observation(CASE, part, relative, abs(error), abs(expected))


def judge_gradients(observations: list[Observation]) -> str:
    """Why a training step is wrong, or an empty string if it is right."""
    failed = [o for o in observations if not o.rmse <= 1]
    if not failed:
        return ""
    worst = max(failed, key=lambda o: o.rmse)
    text = worst.problem or f"off by {worst.max_abs_error:.1e} where the oracle has {worst.reference_rms:.1e}"
    return f"training step: {worst.part} is {text} ({len(failed)} of {len(observations)} checks failed)"


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
