"""The `eager` runtime, before torch is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from harness.contract import FloatArray, TaskKind


class Eager:
    """PyTorch as it runs when nothing is compiled: on the CPU, and on any accelerator that this torch knows.

    Accepts every model whose framework is `torch`. It can also train.
    """

    name = "eager"
    frameworks = frozenset({"torch"})
    description = "PyTorch, not compiled"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session. Sets torch's number of threads, which is one number for the whole process.

        Raises:
            Unsupported: no such device here, or neither float32 nor float64.
            HarnessError: the weights do not fit the layer.
        """
        from harness_torch.session import open_session

        return open_session(self.name, model, weights, options)

    def initial_weights(self, model: harness.Model, size: harness.LayerSize, seed: int) -> Mapping[str, FloatArray]:
        """The model's own initialisation under this seed: float32, standard names, no head.

        The layer is built on the CPU. The caller's random numbers are left as they were.
        """
        from harness_torch.training import initial_weights

        return initial_weights(model, size, seed)

    def open_trainer(
        self,
        model: harness.Model,
        weights: Mapping[str, FloatArray],
        kind: TaskKind,
        recipe: harness.Recipe,
        options: harness.SessionOptions,
    ) -> harness.Trainer:
        """Open a trainer that starts from these weights, `head.weight` and `head.bias` among them.

        Raises:
            Unsupported: no such device here, or neither float32 nor float64.
            HarnessError: the weights do not fit the layer, or the head's are missing.
        """
        from harness_torch.training import TorchTrainer

        return TorchTrainer(self.name, model, weights, kind, recipe, options)
