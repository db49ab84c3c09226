"""Training by a task's recipe, and scoring against its labels."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.contract import (
    Architecture,
    Data,
    HarnessError,
    Inputs,
    LayerSize,
    Model,
    Runtime,
    Session,
    SessionOptions,
    Split,
    Task,
    TaskKind,
    Trainable,
    Unsupported,
)

if TYPE_CHECKING:
    from harness.contract import Array, FloatArray, IntArray

METRICS: dict[TaskKind, str] = {"classification": "accuracy", "regression": "mean squared error"}
CURVE_POINTS = 20  # training-loss points per training, besides one score per epoch
SCORING_BATCH = 500


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a learning curve.

    Attributes:
        step: optimiser steps taken so far.
        epoch: passes over the data so far, as a fraction.
        training_loss: the mean loss since the point before.
        score: the metric on the test split, at the end of an epoch; else NaN.
    """

    step: int
    epoch: float
    training_loss: float
    score: float

    def row(self) -> dict[str, float | None]:
        """Its fields; None for what is not finite, which JSON does not have."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def train(
    model: Model, runtime: Runtime, task: Task, data: Data, seed: int, options: SessionOptions
) -> tuple[dict[str, FloatArray], list[CurvePoint], FloatArray]:
    """Train by the task's recipe. The head, the order of the rows and the model's own initialisation follow the seed.

    What has weights of its own is not trained but scored as it is: its curve has one point, at step 0.

    Returns:
        the weights (head included), the learning curve, and the test predictions (N, outputs) of the trained weights.

    Raises:
        HarnessError: the loss stopped being finite.
        Unsupported: the recipe sets a forget bias, and the architecture has no forget gate; or the architecture has
            weights of its own, without a head that fits the task.
        whatever the model or runtime raises.
    """
    if model.architecture.weights is not None:
        return _score_as_given(model, runtime, task, data, options)
    if not isinstance(runtime, Trainable):
        raise HarnessError(f"runtime '{runtime.name}' cannot train")
    recipe = replace(task.recipe, hidden_size=options.size.hidden_size, num_layers=options.size.num_layers)
    weights = dict(runtime.initial_weights(model, options.size, seed))
    if recipe.forget_bias is not None:
        weights = add_forget_bias(weights, recipe.forget_bias)
    weights |= initial_head(model.architecture, options.size, task.outputs, seed)
    weights = {name: array.astype(options.dtype) for name, array in weights.items()}
    trainer = runtime.open_trainer(model, weights, task.kind, recipe, options)

    rng = np.random.default_rng([seed, 1])
    steps_per_epoch = math.ceil(len(data.train.x) / recipe.batch_size)
    every = max(1, recipe.epochs * steps_per_epoch // CURVE_POINTS)
    curve: list[CurvePoint] = []
    losses: list[float] = []
    predictions: FloatArray = np.empty((0, task.outputs))
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        for batch in data.train.rows(rng.permutation(len(data.train.x))).batches(recipe.batch_size):
            losses.append(float(trainer.step(trainer.prepare(_cast(batch, options.dtype)))))
            step += 1
            if not math.isfinite(losses[-1]):
                raise HarnessError(f"training diverged: the loss was {losses[-1]} at step {step}")
            if step % every == 0 and step < epoch * steps_per_epoch:
                curve.append(CurvePoint(step, step / steps_per_epoch, float(np.mean(losses)), math.nan))
                losses.clear()
        weights = {name: array.astype(options.dtype) for name, array in trainer.weights().items()}
        with closing(runtime.open(model, without_head(weights), options)) as session:
            predictions = predict(session, model.architecture, weights, data.test, options.dtype)
        score = score_of(task.kind, predictions, data.test.targets)
        curve.append(CurvePoint(step, float(epoch), float(np.mean(losses)) if losses else math.nan, score))
        losses.clear()
    return weights, curve, predictions


def _score_as_given(
    model: Model, runtime: Runtime, task: Task, data: Data, options: SessionOptions
) -> tuple[dict[str, FloatArray], list[CurvePoint], FloatArray]:
    """What `train` gives for weights that are given; see there."""
    assert model.architecture.weights is not None
    weights = {name: array.astype(options.dtype) for name, array in model.architecture.weights(options.size).items()}
    head = {
        name: array.shape for name, array in initial_head(model.architecture, options.size, task.outputs, 0).items()
    }
    found = {name: weights[name].shape for name in head if name in weights}
    if found != head:
        has = " and ".join(f"{name} {shape}" for name, shape in found.items()) or "neither"
        needs = " and ".join(f"{name} {shape}" for name, shape in head.items())
        raise Unsupported(
            f"the weights given to model '{model.name}' have {has} of the {needs} that task '{task.name}' is scored "
            "with; add them to the file, or give no weights and it is trained"
        )
    with closing(runtime.open(model, without_head(weights), options)) as session:
        predictions = predict(session, model.architecture, weights, data.test, options.dtype)
    score = score_of(task.kind, predictions, data.test.targets)
    return weights, [CurvePoint(0, 0.0, math.nan, score)], predictions


def predict(
    session: Session, architecture: Architecture, weights: Mapping[str, FloatArray], split: Split, dtype: str
) -> FloatArray:
    """The head's outputs for every row: (N, outputs), in the given dtype."""
    head_weight, head_bias = weights["head.weight"].astype(dtype), weights["head.bias"].astype(dtype)
    parts = []
    for batch in split.batches(SCORING_BATCH):
        outputs = session.fetch(session.run(session.prepare(Inputs(batch.x.astype(dtype), lengths=batch.lengths))))
        parts.append(summary(outputs.state[0], architecture.directions) @ head_weight.T + head_bias)
    return np.concatenate(parts)


def summary(h_n: FloatArray, directions: int) -> FloatArray:
    """The last layer's final hidden states, forward then backward, side by side: (L*D, B, H) to (B, D*H)."""
    return np.concatenate(list(h_n[-directions:]), axis=1)


def score_of(kind: TaskKind, predictions: FloatArray, targets: Array) -> float:
    """Accuracy (a fraction) for classification, mean squared error for regression."""
    if kind == "classification":
        return float(np.mean(_classes(predictions) == targets))
    return float(np.mean((predictions - targets.reshape(predictions.shape)) ** 2))


def trivial_score(kind: TaskKind, data: Data) -> float:
    """The score of always giving the answer that fits the training split best: its commonest class, or its mean."""
    if kind == "classification":
        classes, counts = np.unique(data.train.targets, return_counts=True)
        return float(np.mean(data.test.targets == classes[counts.argmax()]))
    return float(np.mean((data.test.targets - data.train.targets.mean(axis=0)) ** 2))


def agreement(kind: TaskKind, predictions: FloatArray, others: FloatArray) -> int | None:
    """On how many rows two variants give the same class; None for regression."""
    if kind != "classification":
        return None
    classes = _classes(predictions)
    return int(np.sum((classes == _classes(others)) & (classes >= 0)))


def npy_bytes(array: Array) -> bytes:
    """What a `.npy` file of an array holds, without pickle."""
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


def initial_head(architecture: Architecture, size: LayerSize, outputs: int, seed: int) -> dict[str, FloatArray]:
    """The linear head, uniform in ±1/sqrt(D*H) (torch.nn.Linear's initialisation), the same for every variant."""
    features = architecture.directions * size.hidden_size
    bound = 1 / math.sqrt(features)
    rng = np.random.default_rng([seed, 2])
    shapes = {"head.weight": (outputs, features), "head.bias": (outputs,)}
    return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


def training_batches(task: Task, seed: int, count: int, dtype: str) -> list[Split]:
    """Random batches of the task's shape and full length, for timing a training step."""
    rng = np.random.default_rng([seed, 3])

    def batch() -> Split:
        rows = task.recipe.batch_size
        x = rng.standard_normal((rows, task.time, task.input_size)).astype(dtype)
        if task.kind == "classification":
            return Split(x, rng.integers(task.outputs, size=rows))
        return Split(x, rng.standard_normal((rows, task.outputs)).astype(dtype))

    return [batch() for _ in range(count)]


def without_head(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The layer's own weights."""
    return {name: array for name, array in weights.items() if not name.startswith("head.")}


def add_forget_bias(weights: Mapping[str, FloatArray], amount: float) -> dict[str, FloatArray]:
    """Add to the forget gate's input bias in every layer and direction (Jozefowicz et al., ICML 2015).

    Raises:
        Unsupported: the biases are not those of an LSTM's four gates; a GRU, say, has no forget gate.
    """
    changed = dict(weights)
    names = [name for name in weights if name.startswith("bias_ih_l")]
    if not names:
        raise Unsupported("this task sets a forget bias, and these weights have no bias_ih_l0 to set it in")
    for name in names:
        bias = weights[name].copy()
        hidden_size = weights[name.replace("bias_ih", "weight_hh")].shape[1]
        if len(bias) != 4 * hidden_size:
            raise Unsupported(
                f"this task sets a forget bias, and {name} is not that of an LSTM's four gates; choose another task"
            )
        bias[hidden_size : 2 * hidden_size] += amount  # gates stand as i, f, g, o
        changed[name] = bias
    return changed


def _classes(predictions: FloatArray) -> IntArray:
    """The class of each row; -1, which is no class, where the prediction is not finite."""
    return np.where(np.isfinite(predictions).all(axis=1), predictions.argmax(axis=1), -1)


def _cast(batch: Split, dtype: str) -> Split:
    targets = batch.targets.astype(dtype) if batch.targets.dtype.kind == "f" else batch.targets
    return Split(batch.x.astype(dtype, copy=False), targets, batch.lengths)
