"""What NVIDIA's management library says of a device: clocks, temperature, power, energy, and what holds clocks down.

It is asked through NVIDIA's own package nvidia-ml-py (module `pynvml`), which need not be installed.
Source of names and units: NVML API reference guide, https://docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

import importlib
from typing import Any

import harness

REASONS = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")  # how the names of bits begin: now, and before R535
NOT_THROTTLED = ("GpuIdle", "ApplicationsClocksSetting", "UserDefinedClocks", "DisplayClockSetting")  # idle, or set so


class Gauges:
    """What NVML reads of one device."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def state(self) -> harness.DeviceState:
        """Clocks, temperature, power (of newer devices the mean over a second) and throttling, as far as it tells."""
        library = self._library
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # a driver before R535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return harness.DeviceState(
            clock_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1e3,
            throttling=None if bits is None else throttling(library, int(bits)),
        )

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None before Volta."""
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy_mj is None else energy_mj / 1e3

    def _ask(self, function: str, *arguments: Any) -> float | None:
        """What a function says of the device; None where the library, the driver or the device has no answer."""
        try:
            return float(getattr(self._library, function)(self._handle, *arguments))
        except (AttributeError, self._library.NVMLError):
            return None


def find_gauges(uuid: str) -> Gauges | None:
    """The gauges of the device with this UUID, as CUDA writes it. Its number would not do: CUDA may count otherwise.

    None where the package, the driver or such a device is missing, and for a part of a device (MIG), which has none of
    its own.
    """
    try:
        library = importlib.import_module("pynvml")
        library.nvmlInit()
        handle = library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
    except Exception:  # whatever fails, a clock that cannot be read must not stop a measurement
        return None
    try:
        is_divided = library.nvmlDeviceGetMigMode(handle)[0] == library.NVML_DEVICE_MIG_ENABLE
    except (AttributeError, library.NVMLError):  # a device that cannot be divided
        is_divided = False
    return None if is_divided else Gauges(library, handle)


def throttling(library: Any, bits: int) -> str:
    """The names of the reasons that are set, in NVML's words; those that are no throttling are left out."""
    names: dict[int, str] = {}
    for prefix in REASONS:
        for name, bit in vars(library).items():
            if name.startswith(prefix):
                names.setdefault(bit, name.removeprefix(prefix))
    found = [names.get(1 << n, hex(1 << n)) for n in range(bits.bit_length()) if bits >> n & 1]
    return ", ".join(name for name in found if name not in NOT_THROTTLED)
