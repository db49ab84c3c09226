"""Weights on their way between the architecture's names and the layers' (`MinGRU`). Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.contract import FloatArray


def to_parameters(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Gate and candidate stand on top of each other: `weight_z_l0` and `weight_h_l0` become `projections.0.weight`."""
    import numpy as np

    return {
        f"projections.{layer}.{part}": np.concatenate([weights[f"{part}_z_l{layer}"], weights[f"{part}_h_l{layer}"]])
        for layer in range(sum(name.startswith("weight_z_l") for name in weights))
        for part in ("weight", "bias")
    }


def to_weights(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The way back."""
    import numpy as np

    weights: dict[str, FloatArray] = {}
    for name, array in parameters.items():
        _, layer, part = name.split(".")
        weights[f"{part}_z_l{layer}"], weights[f"{part}_h_l{layer}"] = np.split(array, 2)
    return weights
