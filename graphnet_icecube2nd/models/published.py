"""The competition's models, each a short named function.

Sizes are those of the published `predict.py`, which the checkpoints fit; `s_d32` is
what the published README trains as "B model 32", and the write-up's S.
"""

from __future__ import annotations

from typing import Any

from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN
from graphnet_icecube2nd.models.registry import register_model

# What files of 0.1.0 name, by class.
CLASSES = {"DeepIce": "deepice", "DeepIceGNN": "deepice_gnn"}
LARGE = {"dim": 768, "dim_base": 192, "depth": 12}
SMALL = {"dim": 384, "dim_base": 128}


@register_model
def deepice(**overrides: Any) -> DeepIce:
    """DeepIce of any size; the usual ones are those of its class."""
    return DeepIce(**overrides)


@register_model
def deepice_gnn(**overrides: Any) -> DeepIceGNN:
    """DeepIceGNN of any size; the usual ones are those of its class."""
    return DeepIceGNN(**overrides)


@register_model
def b_d32(**overrides: Any) -> DeepIce:
    """Large, heads of 32 (checkpoint baselineV3_BE_globalrel_d32_0_6ema)."""
    return DeepIce(**{**LARGE, "head_size": 32, **overrides})


@register_model
def b_d64(**overrides: Any) -> DeepIce:
    """Large, heads of 64 (checkpoint baselineV3_BE_globalrel_d64_0_3emaFT_2)."""
    return DeepIce(**{**LARGE, "head_size": 64, **overrides})


@register_model
def b_d32_4rel(**overrides: Any) -> DeepIce:
    """Large, the interval in all four first blocks (checkpoint VFTV3_4RELFT_7)."""
    return DeepIce(**{**LARGE, "head_size": 32, "n_rel": 4, **overrides})


@register_model
def s_gnn(**overrides: Any) -> DeepIceGNN:
    """Small hybrid, the published V22 (checkpoint V22FT6_1)."""
    sizes = {"depth": 8, "head_size": 32, "n_rel": 1, "knn_features": 3}
    return DeepIceGNN(**{**SMALL, **sizes, **overrides})


@register_model
def b_gnn(**overrides: Any) -> DeepIceGNN:
    """Large hybrid, the published V23 (checkpoint V23FT5_6)."""
    sizes = {"head_size": 64, "n_rel": 4, "knn_features": 4}
    return DeepIceGNN(**{**LARGE, **sizes, **overrides})


@register_model
def s_d32(**overrides: Any) -> DeepIce:
    """Small: the published README's "B model 32"."""
    return DeepIce(**{**SMALL, "depth": 12, "head_size": 32, **overrides})


@register_model
def t_d32(**overrides: Any) -> DeepIce:
    """Tiny, our own: trains on one machine."""
    sizes = {"dim": 192, "dim_base": 96, "depth": 12, "head_size": 32}
    return DeepIce(**{**sizes, **overrides})


@register_model
def t_sim(**overrides: Any) -> DeepIce:
    """Smaller still, our own: trains on simulated events in hours on two cores."""
    sizes = {"dim": 128, "dim_base": 32, "depth": 4, "head_size": 32, "depth_rel": 2}
    return DeepIce(**{**sizes, **overrides})
