"""A GRU, written as its equations.

A gated recurrent unit has one memory where an LSTM has two: what it keeps, the hidden state h, is also what it shows.
Two gates, numbers between 0 and 1, one per hidden unit, look at the new input and at what was kept:

    r_t = sigmoid(U_r x_t + V_r h_{t-1} + b_r)                  reset gate: how much of the past the candidate hears
    z_t = sigmoid(U_z x_t + V_z h_{t-1} + b_z)                  update gate: how much of the past to keep
    n_t = tanh(U_n x_t + b_n + r_t * (V_n h_{t-1} + d_n))       the candidate: what is new

    h_t = (1 - z_t) * n_t + z_t * h_{t-1}                       what is kept makes room for what is new

`*` is element by element. The two shares in h_t add up to one, so one gate does what the forget gate and the input gate
of an LSTM do, and with z near 1 a value, and its gradient, passes through many steps unharmed.

Three things that are easily got wrong:

1. Here r_t stands outside the product V_n h_{t-1}. So it does in `torch.nn.GRU`, and in the ONNX operator with
   `linear_before_reset=1`. The published paper has V_n (r_t * h_{t-1}). The numbers differ, and weights trained for one
   form are wrong in the other. This form can be faster: its three products with h_{t-1} can be made at once.
2. Because r_t stands between them, the candidate's two biases, b_n and d_n, cannot be added up beforehand.
3. Here z_t is the share that is kept, as in the paper. In Chung et al. 2014 it is the share that is new.

Stacks and directions are those of the LSTM in `harness_hand.lstm`.

Sources: Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", arXiv 1406.1078; Chung et al. 2014, "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence
Modeling", arXiv 1412.3555; and for the form, the documentation of `torch.nn.GRU`.

Letters for shapes: B batch, T time, I input size, H hidden size, L layers, D directions (1 or 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness_hand.loop import over_time


class Cell(nn.Module):
    """One layer in one direction: the weights of two gates and of the candidate, and one step.

    U (H, I) for the input, V (H, H) for the hidden state, b (H,) and d_n (H,). All start uniform in ±1/√H, as in
    `torch.nn.GRU`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()

        bound = 1 / math.sqrt(hidden_size)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        n, m = hidden_size, input_size
        self.U_r, self.V_r, self.b_r = weight(n, m), weight(n, n), weight(n)
        self.U_z, self.V_z, self.b_z = weight(n, m), weight(n, n), weight(n)
        self.U_n, self.V_n, self.b_n, self.d_n = weight(n, m), weight(n, n), weight(n), weight(n)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor]:
        """One step: x (B, I) and h (B, H) give the next h, as a state of one part.

        A batch holds one sample per row, so U x of the equations is written x @ U.T.
        """
        r = torch.sigmoid(x @ self.U_r.T + h @ self.V_r.T + self.b_r)  # (B, H)
        z = torch.sigmoid(x @ self.U_z.T + h @ self.V_z.T + self.b_z)  # (B, H)
        n = torch.tanh(x @ self.U_n.T + self.b_n + r * (h @ self.V_n.T + self.d_n))  # (B, H)
        h = (1 - z) * n + z * h  # (B, H)
        return (h,)


class HandGRU(nn.Module):
    """A stack of cells, called like `torch.nn.GRU(batch_first=True)`.

    A weight is named `forward_cells.0.U_r`: the direction, the layer, the letter of the equations.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, directions: int = 1) -> None:
        super().__init__()
        self.hidden_size, self.num_layers, self.directions = hidden_size, num_layers, directions
        input_sizes = [input_size] + [directions * hidden_size] * (num_layers - 1)
        self.forward_cells = nn.ModuleList(Cell(size, hidden_size) for size in input_sizes)
        if directions == 2:
            self.backward_cells = nn.ModuleList(Cell(size, hidden_size) for size in input_sizes)

    def forward(self, x: Tensor, h_0: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read sequences.

        Args:
            x: (B, T, I).
            h_0: (L*D, B, H). None means zeros.
            lengths: (B,) integers in 1..T; row b is padding from lengths[b] on. None means no padding.

        Returns:
            y (B, T, D*H), the last layer's hidden states, 0 at padding; and h_n (L*D, B, H), the hidden state after the
            last step that each cell has read.
        """
        if h_0 is None:
            h_0 = x.new_zeros(self.num_layers * self.directions, x.shape[0], self.hidden_size)

        y = x.transpose(0, 1)  # (T, B, I): time first, so that a step is one slice
        real = None
        if lengths is not None:
            real = torch.arange(len(y), device=x.device)[:, None] < lengths.to(x.device)  # (T, B)
            y = torch.where(real[:, :, None], y, 0.0)  # padding may hold anything, even NaN

        last = []  # the final h of every layer and direction: number l*D + d is layer l, direction d
        for layer in range(self.num_layers):
            k = layer * self.directions
            outputs, (h,) = over_time(self.forward_cells[layer], y, (h_0[k],), real=real)  # (T, B, H)
            last.append(h)
            if self.directions == 2:
                backward, (h,) = over_time(self.backward_cells[layer], y, (h_0[k + 1],), reverse=True, real=real)
                last.append(h)
                outputs = torch.cat((outputs, backward), dim=2)  # (T, B, 2H): forward first, both in time order
            y = outputs
        return y.transpose(0, 1), torch.stack(last)
