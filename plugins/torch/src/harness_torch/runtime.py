"""The runtimes, before torch is needed."""

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


class EagerBfloat16:
    """PyTorch, not compiled, with weights, inputs and states in bfloat16. Accepts every torch model; does not train."""

    name = "eager-bf16"
    frameworks = frozenset({"torch"})
    description = "PyTorch, not compiled, in bfloat16"
    compute_dtype = "bfloat16"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session that takes and gives float32.

        Raises:
            Unsupported: no such device here, or not float32.
            HarnessError: the weights do not fit the layer.
        """
        from harness_torch.reduced import open_bfloat16

        return open_bfloat16(self.name, model, weights, options)


class TorchInt8:
    """PyTorch's dynamic quantisation: weights in int8, inputs and states rounded to 8 bits at every call.

    Accepts torch models all of whose weight matrices are in nn.LSTM, nn.GRU or nn.Linear. On the CPU only.
    """

    name = "torch-int8"
    frameworks = frozenset({"torch"})
    description = "PyTorch's dynamic quantisation to int8"
    compute_dtype = "int8"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session that takes and gives float32.

        Raises:
            Unsupported: another device than the CPU, not float32, or a weight matrix would stay in float.
            HarnessError: the weights do not fit the layer.
        """
        from harness_torch.reduced import open_int8

        return open_int8(self.name, model, weights, options)


class Compile:
    """`torch.compile`, of the whole layer (`fullgraph=True`), for all batch sizes and lengths (`dynamic=True`).

    Accepts every torch model. nn.LSTM and nn.GRU are compiled too, which torch leaves as they are by default. A loop
    over time in Python, and nn.GRU, are unrolled, so every length is compiled anew. It needs a C++ compiler, and does
    not train.
    """

    name = "compile"
    frameworks = frozenset({"torch"})
    description = "PyTorch, compiled whole by torch.compile"

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session, which compiles when it is called. `cache_dir` keeps what was compiled.

        Raises:
            Unsupported: no such device here, or neither float32 nor float64; at a call: it cannot be compiled whole,
                or there is no C++ compiler.
            HarnessError: the weights do not fit the layer.
        """
        from harness_torch.compiled import open_compiled

        return open_compiled(self.name, model, weights, options)


class Graph:
    """PyTorch, recorded once for every shape and replayed (CUDA graphs, and what other accelerators call so).

    Accepts every torch model whose calls do the same work whatever the numbers are. Does not train.
    """

    name = "graph"
    frameworks = frozenset({"torch"})
    description = "PyTorch, recorded once for every shape and replayed, on an accelerator"
    needs_accelerator = True

    def open(
        self, model: harness.Model, weights: Mapping[str, FloatArray], options: harness.SessionOptions
    ) -> harness.Session:
        """Open a session, which records when it is called with a shape for the first time.

        Raises:
            Unsupported: no such accelerator here, torch records nothing there, or neither float32 nor float64; at a
                call: the layer cannot be recorded.
            HarnessError: the weights do not fit the layer.
        """
        from harness_torch.graph import open_recorded

        return open_recorded(self.name, model, weights, options)
