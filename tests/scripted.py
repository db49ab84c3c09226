"""What workers that answer from a script all answer alike, so that a new request is answered in one place."""

from __future__ import annotations

from typing import Any


class FirstAnswers:
    """To what is asked before anything is timed: of a sound variant, on a machine that is known."""

    def open(self, **_: Any) -> Any:
        return {"open_s": 0.5, "import_s": 0.25, "parameters": 240}

    def first_call(self, **_: Any) -> Any:
        return {"first_call_s": 0.25}

    def costs(self, **_: Any) -> Any:
        bytes_ = {"model_bytes": None, "peak_memory_bytes": 2**20, "peak_device_bytes": None}
        return {"export_s": None, "compile_s": None, "flops": 960.0, **bytes_}

    def energy(self, **_: Any) -> Any:
        return {"energy_j": 0.002, "device_energy_j": None}

    def matrices(self, key: str) -> Any:
        return [
            {"matrix": "weight_ih_l0", "rows": 24, "columns": 3},
            {"matrix": "weight_hh_l0", "rows": 24, "columns": 6},
        ]

    def machine(self, dtype: str, threads: int) -> Any:
        flops = {"what": "flops", "working_set_bytes": 2**20, "flops_per_s": 1e9, "bytes_per_s": None}
        return [flops, flops | {"what": "read", "flops_per_s": None, "bytes_per_s": 1e10}]
