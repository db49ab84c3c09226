"""The same LSTM, arranged for speed.

The mathematics of `harness_hand.lstm` with three changes, in the words of Appleyard et al. 2016 ("Optimizing
Performance of Recurrent Neural Networks on GPUs", arXiv 1604.01946):

1. The four gates' weights stand on top of each other, so one product (B, H) x (H, 4H) serves all four.
2. U x_t does not depend on the step before. It is taken out of the loop: one large product for all T steps.
3. The two biases are added to it there, once.

What is left inside the loop is one product and eight element-wise operations. The weights have the names, shapes and
gate order (i, f, g, o) of `torch.nn.LSTM`, so its weights load as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness_hand.loop import State, over_time


class FusedLSTM(nn.Module):
    """A stack of LSTMs, called like `torch.nn.LSTM(batch_first=True)`.

    Per layer l (and direction, with the ending `_reverse`): `weight_ih_l` (4H, I or D*H), `weight_hh_l` (4H, H),
    `bias_ih_l` (4H,), `bias_hh_l` (4H,). All start uniform in ±1/√H, as in `torch.nn.LSTM`.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, directions: int = 1) -> None:
        super().__init__()
        self.hidden_size, self.num_layers, self.directions = hidden_size, num_layers, directions
        self.endings = [f"_l{layer}{way}" for layer in range(num_layers) for way in ("", "_reverse")[:directions]]
        bound = 1 / math.sqrt(hidden_size)
        for k, ending in enumerate(self.endings):
            features = input_size if k < directions else directions * hidden_size
            shapes = {
                "weight_ih": (4 * hidden_size, features),
                "weight_hh": (4 * hidden_size, hidden_size),
                "bias_ih": (4 * hidden_size,),
                "bias_hh": (4 * hidden_size,),
            }
            for name, shape in shapes.items():
                self.register_parameter(name + ending, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read sequences: shapes and meaning as in `HandLSTM.forward`."""
        if state is None:
            zeros = x.new_zeros(len(self.endings), x.shape[0], self.hidden_size)
            state = zeros, zeros
        h_0, c_0 = state

        y = x.transpose(0, 1)  # (T, B, I)
        real = None
        if lengths is not None:
            real = torch.arange(len(y), device=x.device)[:, None] < lengths.to(x.device)  # (T, B)
            y = torch.where(real[:, :, None], y, 0.0)  # padding may hold anything, even NaN

        h_n, c_n = [], []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                k = layer * self.directions + direction
                output, (h, c) = self._direction(self.endings[k], y, (h_0[k], c_0[k]), direction == 1, real)
                outputs.append(output)
                h_n.append(h)
                c_n.append(c)
            y = torch.cat(outputs, dim=2) if self.directions == 2 else outputs[0]  # (T, B, D*H)
        return y.transpose(0, 1), (torch.stack(h_n), torch.stack(c_n))

    def _direction(
        self, ending: str, x: Tensor, state: State, reverse: bool, real: Tensor | None
    ) -> tuple[Tensor, State]:
        """One layer in one direction: x (T, B, features) gives (T, B, H)."""
        bias = self.get_parameter("bias_ih" + ending) + self.get_parameter("bias_hh" + ending)  # (4H,)
        projected = F.linear(x, self.get_parameter("weight_ih" + ending), bias)  # (T, B, 4H)
        recurrent = self.get_parameter("weight_hh" + ending).t()  # (H, 4H)

        def step(projected_t: Tensor, h: Tensor, c: Tensor) -> State:
            gates = torch.addmm(projected_t, h, recurrent)  # (B, 4H)
            i, f, g, o = gates.chunk(4, dim=1)  # each (B, H)
            c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
            return torch.sigmoid(o) * torch.tanh(c), c

        return over_time(step, projected, state, reverse, real)
