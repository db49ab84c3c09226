"""Training: a torch layer, the harness's linear head on its summary, an optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness_torch.process_state import settle, settle_all
from harness_torch.session import DTYPES, build, find_device, open_layer, to_array, to_tensor

if TYPE_CHECKING:
    from harness.contract import FloatArray, TaskKind

Batch = tuple[Tensor, Tensor, Tensor | None]  # x (B, T, I), targets, lengths (B,) or None


def initial_weights(model: harness.Model, size: harness.LayerSize, seed: int) -> Mapping[str, FloatArray]:
    """See `Eager.initial_weights`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        settle_all(torch.get_num_threads())  # another model may have changed the dtype in which layers are made
        layer = build(model, size).float()
    return model.from_parameters({name: to_array(tensor) for name, tensor in layer.state_dict().items()})


class TorchTrainer:
    """A model being trained; see `harness.Trainer` and `Eager.open_trainer`."""

    def __init__(
        self,
        runtime: str,
        model: harness.Model,
        weights: Mapping[str, FloatArray],
        kind: TaskKind,
        recipe: harness.Recipe,
        options: harness.SessionOptions,
    ) -> None:
        if not {"head.weight", "head.bias"} <= weights.keys():
            raise harness.HarnessError(
                f"the weights for training model '{model.name}' lack head.weight or head.bias; add both"
            )
        self._model, self._kind, self._dtype, self._clip_norm = model, kind, options.dtype, recipe.clip_norm
        self._device, self._threads = find_device(f"runtime '{runtime}'", options.device), options.threads
        self._layer = open_layer(runtime, model, weights, options).train()
        outputs, features = weights["head.weight"].shape  # (outputs, D*H)
        self._head = nn.Linear(features, outputs, device=self._device, dtype=DTYPES[options.dtype])
        self._head.load_state_dict(
            {name: torch.from_numpy(np.array(weights[f"head.{name}"])) for name in ("weight", "bias")}
        )
        self._parameters = [*self._layer.parameters(), *self._head.parameters()]
        self._optimizer = _optimizer(recipe, self._parameters)

    def prepare(self, batch: harness.Split) -> Batch:
        """Bring a batch to the device."""
        settle(self._threads)
        return (
            to_tensor(batch.x, self._device, self._dtype),
            to_tensor(batch.targets, self._device, "int64" if self._kind == "classification" else self._dtype),
            None if batch.lengths is None else to_tensor(batch.lengths, self._device, "int64"),
        )

    def step(self, prepared: Batch) -> float:
        """Forward, backward, one optimiser step; the mean loss before it. Reading the loss waits for the device."""
        x, targets, lengths = prepared
        outputs = self._head(self._summary(x, lengths))  # (B, outputs)
        loss = F.cross_entropy(outputs, targets) if self._kind == "classification" else F.mse_loss(outputs, targets)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._optimizer.step()
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)  # the loss alone would not wait for the optimiser
        return loss.item()

    def weights(self) -> Mapping[str, FloatArray]:
        """The weights now, in the standard names and layout, with the head's."""
        parameters = {name: to_array(tensor) for name, tensor in self._layer.state_dict().items()}
        head = {f"head.{name}": to_array(tensor) for name, tensor in self._head.state_dict().items()}
        return {**self._model.from_parameters(parameters), **head}

    def _summary(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The last layer's final hidden state of every direction, side by side: (B, D*H)."""
        if lengths is None:
            return self._final_hidden(x)
        if self._model.takes_lengths:
            return self._final_hidden(x, None, lengths)
        groups = {length: (lengths == length).nonzero()[:, 0] for length in set(lengths.tolist())}  # row numbers
        summaries = torch.cat([self._final_hidden(x[rows, :length]) for length, rows in groups.items()])
        return summaries[torch.cat(list(groups.values())).argsort()]  # back in the rows' own order

    def _final_hidden(self, *arguments: Tensor | None) -> Tensor:
        _, state = self._layer(*arguments)
        h_n: Tensor = state if isinstance(state, Tensor) else state[0]  # (L*D, B, H)
        return h_n[-self._model.architecture.directions :].transpose(0, 1).flatten(1)


def _optimizer(recipe: harness.Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.learning_rate)
    return torch.optim.SGD(parameters, lr=recipe.learning_rate)
