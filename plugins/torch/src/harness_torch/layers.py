"""`torch.nn.LSTM` and `torch.nn.GRU`, which also take lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

State = tuple[Tensor, Tensor]


class TorchLSTM(nn.LSTM):
    """`torch.nn.LSTM(batch_first=True)`; without lengths, nothing but that."""

    def forward(  # type: ignore[override]  # nn.LSTM takes packed sequences; this makes them itself
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read sequences.

        Args:
            x: (B, T, I).
            state: `(h_0, c_0)`, each (L*D, B, H). None means zeros.
            lengths: (B,) integers in 1..T; row b is padding from lengths[b] on. None means no padding.

        Returns:
            y (B, T, D*H), 0 at padding; and `(h_n, c_n)`, each (L*D, B, H), after each row's own last real step.
        """
        if lengths is None:
            return super().forward(x, state)
        return _read_packed(super().forward, x, state, lengths)


class TorchGRU(nn.GRU):
    """`torch.nn.GRU(batch_first=True)`; without lengths, nothing but that."""

    def forward(  # type: ignore[override]  # nn.GRU takes packed sequences; this makes them itself
        self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read sequences: as `TorchLSTM.forward`, but the state is one tensor, h_0 and h_n (L*D, B, H)."""
        if lengths is None:
            return super().forward(x, state)
        return _read_packed(super().forward, x, state, lengths)


def _read_packed(read: Callable[..., Any], x: Tensor, state: Any, lengths: Tensor) -> tuple[Tensor, Any]:
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    packed, last = read(packed, state)
    y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    return y, last
