"""Weights of kinds that are not a trained model's own: refused, and named for what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch

from slide_deploy.errors import CheckpointError
from slide_deploy.utils.text import cut

__all__ = ["is_quantized", "quantized", "refuse_other_kinds"]

_LORA = re.compile(r"(?:^|[._])lora[_.](?:[AB]|down|up|embedding|magnitude)")
# torch.ao, bitsandbytes, GPTQ and AWQ, in this order.
_QUANTIZED = re.compile(
    r"_packed_params|(?:^|[._])zero_point$"
    r"|\.(?:SCB|weight_format|absmax|quant_map)$|\.quant_state\."
    r"|(?:^|\.)(?:qweight|qzeros)$"
)
_QUANTIZED_TYPES = (torch.int8, torch.uint8, torch.qint8, torch.quint8, torch.qint32)


def refuse_other_kinds(path: Path, keys: Iterable[object]) -> None:
    """Raise CheckpointError where the names are those of adapters or of quantized weights."""
    for key in keys:
        if not isinstance(key, str):
            continue
        if _LORA.search(key):
            raise CheckpointError(
                f"{path} holds LoRA adapters ({cut(key)}), not a whole model",
                "merge them into the model with peft's merge_and_unload(), then save that",
            )
        if _QUANTIZED.search(key):
            raise quantized(path, key)


def is_quantized(value: torch.Tensor) -> bool:
    """Whether a tensor is of a type that only quantized weights have."""
    return value.dtype in _QUANTIZED_TYPES


def quantized(path: Path, what: str) -> CheckpointError:
    """The refusal of quantized weights, by the name of one of them."""
    return CheckpointError(
        f"{path} holds quantized weights ({cut(what)})",
        "give the checkpoint that they were made from; --precision chooses what is exported",
    )
