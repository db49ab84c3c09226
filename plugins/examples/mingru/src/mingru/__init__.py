"""minGRU for rnn-harness: an architecture of its own, and two models of it in torch.

Importing this package imports neither torch nor NumPy; building a layer or asking the oracle does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness
from mingru.doors import to_parameters, to_weights
from mingru.oracle import MINGRU

if TYPE_CHECKING:
    from mingru.layers import MinGRU

harness_contract = 1


def build_loop(input_size: int, hidden_size: int, num_layers: int = 1) -> MinGRU:
    """A freshly initialised layer that walks through time."""
    from mingru.layers import MinGRU

    return MinGRU(input_size, hidden_size, num_layers)


def build_scan(input_size: int, hidden_size: int, num_layers: int = 1) -> MinGRU:
    """A freshly initialised layer that scans all steps together."""
    from mingru.layers import MinGRUScan

    return MinGRUScan(input_size, hidden_size, num_layers)


@harness.hookimpl
def harness_models() -> list[harness.Model]:
    """The same mathematics twice."""
    return [
        harness.Model(
            name,
            MINGRU,
            "torch",
            build,
            to_parameters=to_parameters,
            from_parameters=to_weights,
            description=f"minGRU, {how}",
        )
        for name, build, how in (
            ("mingru", build_loop, "step by step"),
            ("mingru-scan", build_scan, "by a parallel scan"),
        )
    ]
