"""Whether a device that is asked for is here."""

from __future__ import annotations

import torch

from terrarium.errors import InputError


def check_device(device: str, what: str) -> None:
    """Raise ``InputError``, in which ``what`` names the setting, for a device that is not here.

    ``device`` is ``cpu``, ``cuda`` or ``cuda:N``.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"{what} expects cpu, cuda or cuda:N; got '{device}'.")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(index or 0) >= count:
        raise InputError(
            f"There is no device '{device}': PyTorch sees {count} of this kind here; "
            f"leave out {what} to use the CPU."
        )
