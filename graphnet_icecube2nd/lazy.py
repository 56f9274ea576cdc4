"""Late imports of public names and of optional libraries.

`icecube2nd --help` needs neither torch nor pyarrow, and users of a room need not know
its modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# Name of a library in the package index, where it differs from the module's name.
_LIBRARIES = {"yaml": "PyYAML", "optuna": "Optuna", "sklearn": "scikit-learn"}


def import_extra(module: str, what: str, extra: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: Name of the module.
        what: Subject and verb of the error message: `plots need`.
        extra: Extra of this package that installs the library.

    Raises:
        ImportError: The library is missing; the message says how to install it.
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
    """Return `__getattr__`, `__dir__` and `__all__` of a package, given its `__name__`.

    `modules` gives the module, below the package, of each public name.
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
