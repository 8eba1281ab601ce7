"""In which precision a GPU computes: one decision, made where a trainer begins, and what protocols say of it."""

from __future__ import annotations

import os

import torch

PLAIN = "32-true"
"""fp32 that is fp32."""

_decided = [PLAIN]


def decide(device: torch.device, precision: object = PLAIN) -> str:
    """Decide whether products and convolutions in fp32 may take TF32 on a GPU, and return the words for protocols.

    By itself torch lets cuDNN's convolutions take TF32 and products not: an "fp32" gradient of the multi-scale energy
    is then wrong by 2.6e-2 of its largest element (docs/speed.md). Here fp32 is fp32, in both; TF32 is taken in both
    where it was asked for, by ``EBMZOO_TF32=1`` in the environment or ``torch.set_float32_matmul_precision("high")``.

    Args:
        device: where the trainer computes; a CPU has no TF32, and nothing is changed for one.
        precision: the trainer's.

    Example:
        >>> decide(torch.device("cpu"), "bf16-mixed"), decide(torch.device("cpu"))
        ('bf16-mixed', '32-true')
    """
    words = str(precision)
    if device.type == "cuda":
        tf32 = os.environ.get("EBMZOO_TF32") == "1" or torch.get_float32_matmul_precision() != "highest"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        words += ", TF32" if tf32 else ""
    _decided[0] = words
    return words


def decided() -> str:
    """The words of the last decision."""
    return _decided[0]
