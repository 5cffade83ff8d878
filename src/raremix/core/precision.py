"""In which numbers a device computes."""

from typing import Literal

import torch

Precision = Literal["auto", "bf16", "32"]
"""Bits of what a network computes; "auto": bf16 where the device computes in it, else 32."""


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16.

    A CPU without AMX or AVX512-BF16, and a GPU before Ampere, emulate it; on the CPU two to three times slower than 32
    bits.

    Example:
        >>> computes_in_bf16(torch.device("meta"))
        False
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False
