"""LoRA layers whose rows come sorted by adapter: each adapter takes a slice, and nothing is copied.

peft gathers the rows of every adapter in every layer, which takes longer than the base model's own
matrices when many adapters are mixed. The numbers are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def take_slices(model: torch.nn.Module) -> None:
    """Lets `model`'s plain LoRA layers take slices where `adapter_names` are sorted.

    Layers of another kind, and variants of LoRA, stay as they are. So does everything if peft no
    longer asks a layer's `_mixed_batch_forward`.
    """
    from peft.tuners.lora.layer import Linear

    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    for layer in layers:
        layer._mixed_batch_forward = MethodType(_forward, layer)


def _forward(
    layer: Any, x: torch.Tensor, *args: Any, adapter_names: list[str], **options: Any
) -> torch.Tensor:
    import torch

    slices = slices_of(adapter_names)
    if (
        slices is None
        or torch.is_grad_enabled()  # slices are added to in place
        or layer.training
        or any(name in layer.lora_variant for name in slices)
    ):
        usual: torch.Tensor = type(layer)._mixed_batch_forward(
            layer, x, *args, adapter_names=adapter_names, **options
        )
        return usual
    result: torch.Tensor = layer.base_layer(
        x, *args, **{key: value for key, value in options.items() if value is not None}
    )
    for name, rows in slices.items():
        if name in layer.lora_A:  # not every layer has every adapter, and the base has none
            down = layer.lora_A[name]
            up = layer.lora_B[name](down(x[rows].to(down.weight.dtype)))
            result[rows] += (up * layer.scaling[name]).to(result.dtype)
    return result


def slices_of(names: Sequence[str]) -> dict[str, slice] | None:
    """Where each name's rows are; None if they are not next to each other."""
    slices: dict[str, slice] = {}
    start = 0
    for name, rows in groupby(names):
        if name in slices:
            return None
        end = start + sum(1 for _ in rows)
        slices[name] = slice(start, end)
        start = end
    return slices
