"""A linear layer together with the operation that follows it.

A transformer block ends both branches with `x + scale * linear(y)` and begins its MLP
with `gelu(linear(x))`. With gradients these are a few simple operations, and the scale
is multiplied into the weight, which is smaller than the result. Without gradients, on a
CPU, PyTorch's oneDNN kernels add to, or activate, each result while it is still in the
cache (for the gain see benchmarks/results/models_log.md). `torch.compile` compiles the
simple form.

Sums of branches are at least float32: autocast rounds branches, never the sum.

Shape letters: T tokens, D and E widths.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear_gelu(values_TD: Tensor, layer: nn.Linear) -> Tensor:
    """Return gelu(layer(values)), (T, E)."""
    if (dtype := _fused_type(values_TD)) is None:
        return F.gelu(layer(values_TD))
    bent: Tensor = torch.ops.mkldnn._linear_pointwise(
        values_TD.to(dtype),
        layer.weight.to(dtype),
        layer.bias.to(dtype),
        *("gelu", [], "none"),
    )
    return bent


def linear_add(
    values_TD: Tensor, layer: nn.Linear, scale_E: Tensor | None, sum_TE: Tensor
) -> Tensor:
    """Return sum + scale * layer(values), (T, E), in the type of the sum."""
    weight_ED: Tensor = layer.weight
    bias_E: Tensor = layer.bias
    if scale_E is not None:
        weight_ED, bias_E = scale_E[:, None] * weight_ED, scale_E * bias_E
    dtype = _fused_type(values_TD)
    if dtype is None or dtype != sum_TE.dtype:
        return sum_TE + F.linear(values_TD, weight_ED, bias_E)
    added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        values_TD.to(dtype), sum_TE, weight_ED.to(dtype), bias_E.to(dtype), "add"
    )
    return added


def _fused_type(values: Tensor) -> torch.dtype | None:
    """Return the type in which the fused kernels can compute this, or None."""
    if (
        torch.is_grad_enabled()
        or values.device.type != "cpu"
        or torch.compiler.is_compiling()
        or not torch.backends.mkldnn.enabled
        or not _fused_works(torch.float32)
    ):
        return None
    dtype = values.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    if dtype == torch.float32:
        return dtype
    return dtype if dtype == torch.bfloat16 and _fused_works(dtype) else None


@cache
def _fused_works(dtype: torch.dtype) -> bool:
    """Try the kernels once: they are internal to PyTorch and may be missing."""
    try:
        with torch.no_grad():
            value = torch.ones(2, 2, dtype=dtype)
            kernel = torch.ops.mkldnn._linear_pointwise
            bent = kernel(value, value, value[0], "gelu", [], "none")
            added = kernel.binary(value, value, value, value[0], "add")
            wanted = F.gelu(F.linear(value, value, value[0]))
            return bool(torch.allclose(bent, wanted) and (added == 4).all())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
