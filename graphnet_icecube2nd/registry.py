"""Registry: detectors, tasks and models by public name.

Other packages add their own through the entry-point group
`graphnet_icecube2nd.plugins`: each entry point names a module (or a function without
arguments) that calls `register_detector`, `register_task` or `register_model`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

PLUGINS = "graphnet_icecube2nd.plugins"

_loaded: set[str] = set()  # groups of entry points

Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry(Generic[Entry]):
    """Builders of one kind (`model`), by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> Entry:
        """Register a builder; ValueError if its name is taken or not allowed."""
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(
                f"the name of a {self.kind} consists of letters, digits, _ and -, "
                f"found {name!r}: choose another name"
            )
        if name in self._entries:
            raise ValueError(
                f"a {self.kind} named {name!r} is already registered, by "
                f"{self._entries[name].__module__}"
            )
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> Entry:
        """Return the builder of a name; ValueError gives the nearest known names."""
        load_plugins()
        if name not in self._entries:
            near = get_close_matches(str(name), self._entries) or sorted(self._entries)
            raise ValueError(
                f"no {self.kind} named {name!r}; did you mean {', '.join(near)}? A "
                f"{self.kind} of your own must be imported first (docs/extend.md)"
            )
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Return the names that match, sorted; `*` and `?` work as in a shell."""
        load_plugins()
        return sorted(name for name in self._entries if fnmatch(name, pattern))


def load_plugins() -> None:
    """Load the plugins of other installed packages, once; warn if one fails."""
    if PLUGINS in _loaded:
        return
    _loaded.add(PLUGINS)  # first, because a plugin may itself look up names
    for point in entry_points(group=PLUGINS):
        try:
            loaded = point.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # a broken plugin must not break the package
            warnings.warn(
                f"plugin {point.name!r} ({point.value}) could not be loaded: {error!r}",
                stacklevel=4,
            )
