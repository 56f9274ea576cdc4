"""YAML as plain values, read without running code.

YAML 1.1 takes `2e-5` for a text; here it is the number that everybody means.
"""

from __future__ import annotations

import re
from typing import Any

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def load_yaml(text: str, origin: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        ValueError: It is no YAML; names the origin.
        ImportError: PyYAML is not installed.
    """
    yaml = _import_yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Knows numbers without a point."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", NUMBER, list("-+.0123456789")
    )
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise ValueError(f"{origin} is no YAML: {where}") from None


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML, in their order.

    Raises:
        ImportError: PyYAML is not installed.
    """
    text: str = _import_yaml().safe_dump(values, sort_keys=False, width=88)
    return text


def _import_yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            "YAML files need PyYAML: pip install graphnet-icecube2nd[train]"
        ) from error
    return yaml
