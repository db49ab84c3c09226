"""What torch keeps once for the whole process, and so for every layer in it; a layer may have changed it."""

from __future__ import annotations

import torch


def settle(threads: int) -> None:
    """Before every call: what a layer may change while its neighbours are timed, looked at in some 0.4 us."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if torch.get_default_dtype() is not torch.float32:
        torch.set_default_dtype(torch.float32)
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
    torch.set_flush_denormal(False)


def settle_all(threads: int) -> None:
    """Before a session is opened: everything, with what takes longer to look at.

    Float32 means float32: the shorter TensorFloat-32 products that some accelerators use for it are switched off.
    """
    settle(threads)
    torch.set_default_device(None)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # on by default, and used by its recurrent layers
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.deterministic = False
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]  # a property, to torch's own checker
    if torch.are_deterministic_algorithms_enabled():  # setting it imports torch's compiler: 1.5 s, 70 MiB
        torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
