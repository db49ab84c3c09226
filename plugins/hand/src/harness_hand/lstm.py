"""An LSTM, written as its equations.

A recurrent layer reads a sequence x_1, x_2, ... and keeps a memory. An LSTM keeps two: the cell c, which is added to
and so can last, and the hidden state h, which is what the layer shows. At every step four small networks look at the
new input and at what was shown last. Three of them are gates, numbers between 0 and 1, one per hidden unit:

    i_t = sigmoid(U_i x_t + V_i h_{t-1} + b_i)      input gate: how much of the candidate to write
    f_t = sigmoid(U_f x_t + V_f h_{t-1} + b_f)      forget gate: how much of the old cell to keep
    o_t = sigmoid(U_o x_t + V_o h_{t-1} + b_o)      output gate: how much of the cell to show
    g_t =    tanh(U_g x_t + V_g h_{t-1} + b_g)      the candidate: what could be written

    c_t = f_t * c_{t-1} + i_t * g_t                 keep some, write some
    h_t = o_t * tanh(c_t)                           show some

`*` is element by element. The sum in c_t is the point: with f near 1 a value, and its gradient, passes through many
steps unharmed, where a plain recurrent network multiplies by the same matrix again and again.

Layers are stacked: the hidden states of one are the inputs of the next. A bidirectional layer is two LSTMs with
weights of their own. One reads from the first step to the last, one from the last to the first; at every step their
hidden states stand side by side, so that each step knows what came before it and what comes after.

Sources: Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
Forget", for the forget gate; Schuster & Paliwal 1997, "Bidirectional Recurrent Neural Networks".

Letters for shapes: B batch, T time, I input size, H hidden size, L layers, D directions (1 or 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness_hand.loop import State, over_time


class Cell(nn.Module):
    """One layer in one direction: the weights of the four gates, and one step.

    Per gate: U (H, I) for the input, V (H, H) for the hidden state, b (H,). All start uniform in ±1/√H, as in
    `torch.nn.LSTM`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()

        bound = 1 / math.sqrt(hidden_size)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        n, m = hidden_size, input_size
        self.U_i, self.V_i, self.b_i = weight(n, m), weight(n, n), weight(n)
        self.U_f, self.V_f, self.b_f = weight(n, m), weight(n, n), weight(n)
        self.U_g, self.V_g, self.b_g = weight(n, m), weight(n, n), weight(n)
        self.U_o, self.V_o, self.b_o = weight(n, m), weight(n, n), weight(n)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> State:
        """One step: x (B, I), h (B, H) and c (B, H) give the next h and c.

        A batch holds one sample per row, so U x of the equations is written x @ U.T.
        """
        i = torch.sigmoid(x @ self.U_i.T + h @ self.V_i.T + self.b_i)  # (B, H)
        f = torch.sigmoid(x @ self.U_f.T + h @ self.V_f.T + self.b_f)  # (B, H)
        g = torch.tanh(x @ self.U_g.T + h @ self.V_g.T + self.b_g)  # (B, H)
        o = torch.sigmoid(x @ self.U_o.T + h @ self.V_o.T + self.b_o)  # (B, H)
        c = f * c + i * g  # (B, H)
        h = o * torch.tanh(c)  # (B, H)
        return h, c


class HandLSTM(nn.Module):
    """A stack of cells, called like `torch.nn.LSTM(batch_first=True)`.

    A weight is named `forward_cells.0.U_i`: the direction, the layer, the letter of the equations.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, directions: int = 1) -> None:
        super().__init__()
        self.hidden_size, self.num_layers, self.directions = hidden_size, num_layers, directions
        input_sizes = [input_size] + [directions * hidden_size] * (num_layers - 1)
        self.forward_cells = nn.ModuleList(Cell(size, hidden_size) for size in input_sizes)
        if directions == 2:
            self.backward_cells = nn.ModuleList(Cell(size, hidden_size) for size in input_sizes)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read sequences.

        Args:
            x: (B, T, I).
            state: `(h_0, c_0)`, each (L*D, B, H). None means zeros.
            lengths: (B,) integers in 1..T; row b is padding from lengths[b] on. None means no padding.

        Returns:
            y (B, T, D*H), the last layer's hidden states, 0 at padding; and `(h_n, c_n)`, each (L*D, B, H), the state
            after the last step that each cell has read.
        """
        if state is None:
            zeros = x.new_zeros(self.num_layers * self.directions, x.shape[0], self.hidden_size)
            state = zeros, zeros
        h_0, c_0 = state

        y = x.transpose(0, 1)  # (T, B, I): time first, so that a step is one slice
        real = None
        if lengths is not None:
            real = torch.arange(len(y), device=x.device)[:, None] < lengths.to(x.device)  # (T, B)
            y = torch.where(real[:, :, None], y, 0.0)  # padding may hold anything, even NaN

        last = []  # the final (h, c) of every layer and direction: number l*D + d is layer l, direction d
        for layer in range(self.num_layers):
            k = layer * self.directions
            outputs, end = over_time(self.forward_cells[layer], y, (h_0[k], c_0[k]), real=real)  # (T, B, H)
            last.append(end)
            if self.directions == 2:
                k = k + 1
                backward, end = over_time(self.backward_cells[layer], y, (h_0[k], c_0[k]), reverse=True, real=real)
                last.append(end)
                outputs = torch.cat((outputs, backward), dim=2)  # (T, B, 2H): forward first, both in time order
            y = outputs
        h_n, c_n = zip(*last, strict=True)
        return y.transpose(0, 1), (torch.stack(h_n), torch.stack(c_n))
