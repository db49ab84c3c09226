"""minGRU in torch, twice: a loop over time, and a parallel scan."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinGRU(nn.Module):
    """A stack of minGRUs that walks through time, called like `torch.nn.GRU(batch_first=True)`.

    Per layer one linear map gives gate and candidate of all steps at once: `projections.0.weight` (2H, I).
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.projections = nn.ModuleList(nn.Linear(features, 2 * hidden_size) for features in sizes)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From x (B, T, I) and state (L, B, H), or None for zeros, to y (B, T, H) and the last state (L, B, H)."""
        last = []
        for layer, projection in enumerate(self.projections):
            h = x.new_zeros([x.shape[0], self.hidden_size]) if state is None else state[layer]
            gate, candidate = projection(x).chunk(2, dim=2)  # each (B, T, H)
            keep, new = torch.sigmoid(-gate), torch.sigmoid(gate) * candidate
            y = []
            for t in range(x.shape[1]):
                h = keep[:, t] * h + new[:, t]
                y.append(h)
            x = torch.stack(y, dim=1)
            last.append(h)
        return x, torch.stack(last)


class MinGRUScan(MinGRU):
    """The same in about log2(T) passes over all steps, each of which doubles how far a step has looked back.

    Hillis & Steele 1986, "Data Parallel Algorithms": h_t = keep_t h_{t-1} + new_t is a composition of linear maps, and
    composing them is associative.
    """

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As in `MinGRU.forward`."""
        last = []
        for layer, projection in enumerate(self.projections):
            gate, candidate = projection(x).chunk(2, dim=2)  # each (B, T, H)
            keep, new = torch.sigmoid(-gate), torch.sigmoid(gate) * candidate
            if state is not None:
                first = new[:, :1] + keep[:, :1] * state[layer][:, None]  # the first step alone sees the state
                new = torch.cat([first, new[:, 1:]], dim=1)
            reach = 1
            while reach < x.shape[1]:
                new = torch.cat([new[:, :reach], new[:, reach:] + keep[:, reach:] * new[:, :-reach]], dim=1)
                keep = torch.cat([keep[:, :reach], keep[:, reach:] * keep[:, :-reach]], dim=1)
                reach *= 2
            x = new
            last.append(x[:, -1])
        return x, torch.stack(last)
