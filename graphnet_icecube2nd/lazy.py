"""Imports when they are needed: public names of a room, optional libraries.

So that `icecube2nd --help` needs neither torch nor pyarrow, and a room's names can be
had without knowing its modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# What the package index calls a library, where that is not the name of the module.
_LIBRARIES = {"yaml": "PyYAML", "optuna": "Optuna"}


def import_extra(module: str, what: str, extra: str) -> Any:
    """Return a module of an optional library.

    Args:
        module: Its name.
        what: What needs it, for the error: `plots need`.
        extra: The extra of this package that brings it.

    Raises:
        ImportError: The library is missing; says how to have it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        library = _LIBRARIES.get(name, name.replace("_", "-"))
        raise ImportError(
            f"{what} {library}: pip install graphnet-icecube2nd[{extra}]"
        ) from error


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package, by its `__name__`.

    `modules` says in which module below it each public name lies.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names, sorted(modules)
