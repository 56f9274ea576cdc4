"""Models by public name.

A model's name is the name of the function that builds it; `register_model` puts it
into the list, a package of your own can do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any

from graphnet_icecube2nd.models.deepice import DeepIce

ModelBuilder = Callable[..., DeepIce]
_BUILDERS: dict[str, ModelBuilder] = {}


def register_model(builder: ModelBuilder) -> ModelBuilder:
    """Make a function that builds a model known under its own name.

    Args:
        builder: Takes constructor arguments as keywords, which override its own.

    Raises:
        ValueError: The name is taken.
    """
    name, known = builder.__name__, _known()
    if name in known:
        raise ValueError(
            f"a model named {name!r} is already registered, by {known[name].__module__}"
        )
    known[name] = builder
    return builder


def build_model(name: str, **overrides: Any) -> DeepIce:
    """Build a model by name, with random weights.

    Args:
        name: One of `list_models()`.
        **overrides: Constructor arguments that replace the named model's.

    Raises:
        ValueError: No such model; the message has the nearest names.
        TypeError: No such constructor argument.
    """
    known = _known()
    try:
        builder = known[name]
    except KeyError:
        near = get_close_matches(name, known) or sorted(known)
        raise ValueError(
            f"no model named {name!r}; did you mean {', '.join(near)}?"
        ) from None
    return builder(**overrides)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the known models that match, `*` and `?` as in a shell."""
    return sorted(name for name in _known() if fnmatch(name, pattern))


def _known() -> dict[str, ModelBuilder]:
    """Return the models, once the published ones have put themselves in."""
    from graphnet_icecube2nd.models import published  # noqa: F401

    return _BUILDERS
