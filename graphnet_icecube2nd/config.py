"""Conversion between frozen dataclasses and plain values from YAML or the command line.

An unknown name is an error that gives the nearest valid name. A value of a wrong type
is an error that gives its place. YAML 1.1 reads `2e-5` as a text; here it is a number.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from graphnet_icecube2nd.lazy import import_extra

Made = TypeVar("Made")
YAML_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
FREE = ("model_kwargs", "tasks")  # mappings that accept new names
WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
}


def from_plain(kind: type[Made], values: Mapping[str, Any], where: str = "") -> Made:
    """Return a dataclass from its fields by name; fields with a default are optional.

    Raises ValueError if a name is unknown or missing, or a value has another type.
    `where`, such as `stages.0.`, stands before names in the message.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where.rstrip('.') or kind.__name__} must be a mapping of "
                         f"names to values, got {values!r}")  # fmt: skip
    hints, known = get_type_hints(kind), _init_fields(kind)
    for name in values:
        if name not in known:
            raise ValueError(f"{where}{name} is unknown; {nearest(name, known, where)}")
    needed = [
        where + name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING
        if name not in values
    ]
    if needed:
        raise ValueError(f"{', '.join(needed)} must be given")
    made = {n: _value(hints[n], v, f"{where}{n}") for n, v in values.items()}
    try:
        return kind(**made)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def to_plain(value: Any) -> Any:
    """Return all fields of a dataclass as values that YAML and JSON can hold."""
    if is_dataclass(value):
        return {name: to_plain(getattr(value, name)) for name in _init_fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def set_value(values: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path, such as `stages.2.lr_max`, in plain values.

    Only existing names can be set; otherwise ValueError gives the nearest one. New
    names are allowed within `model_kwargs` and `tasks`.
    """
    *way, last = path.split(".")
    here, so_far, is_free = values, "", False
    for step in way:
        if is_free and isinstance(here, dict):
            here.setdefault(step, {})
        here, so_far = here[_key(here, step, so_far)], f"{so_far}{step}."
        is_free = is_free or step in FREE
    is_new = is_free and isinstance(here, dict)
    here[last if is_new else _key(here, last, so_far)] = value


def nearest(name: object, known: Iterable[object], before: str = "") -> str:
    """Return `did you mean ...?`, or all known names if none is near."""
    names = [str(one) for one in known]
    near = get_close_matches(str(name), names, n=1)
    if near:
        return f"did you mean {before}{near[0]}?"
    return f"known are {', '.join(names)}"


def _key(here: Any, step: str, so_far: str) -> Any:
    if isinstance(here, list):
        if step.isdecimal() and int(step) < len(here):
            return int(step)
        raise ValueError(
            f"{so_far}{step}: {so_far.rstrip('.')} has {len(here)} entries, from 0"
        )
    if not isinstance(here, dict):
        raise ValueError(f"{so_far}{step}: {so_far.rstrip('.')} is {here!r}")
    if step not in here:
        raise ValueError(f"{so_far}{step} is unknown; {nearest(step, here, so_far)}")
    return step


def _init_fields(kind: Any) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(kind) if field.init}


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _value(next(i for i in inner if i is not type(None)), value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{where} must be a list, got {value!r}")
        if inner[-1] is not ... and len(value) != len(inner):
            raise ValueError(f"{where} must have {len(inner)} values, got {value!r}")
        return tuple(_value(inner[0], v, f"{where}.{n}") for n, v in enumerate(value))
    if isinstance(hint, type) and is_dataclass(hint):
        is_made = isinstance(value, hint)
        return value if is_made else from_plain(hint, value, f"{where}.")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping, got {value!r}")
        return {n: _value(inner[1], v, f"{where}.{n}") for n, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    if hint in WORDS and type(value) is not hint:  # bool is an int to Python only
        raise ValueError(f"{where} must be {WORDS[hint]}, got {value!r}")
    return value


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return the plain values of a YAML file; ValueError if it is not valid YAML."""
    return load_yaml(Path(path).read_bytes(), os.fspath(path))


def load_yaml(text: str | bytes, origin: str) -> Any:
    """Return the plain values of a YAML text; ValueError names the invalid origin."""
    yaml = _import_yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """Reads numbers without a decimal point, such as `2e-5`."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", YAML_NUMBER, list("-+.0123456789")
    )
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise ValueError(f"{origin} is not valid YAML: {where}") from None


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML, in their order."""
    text: str = _import_yaml().safe_dump(values, sort_keys=False, width=88)
    return text


def _import_yaml() -> Any:
    return import_extra("yaml", "YAML files need", "train")
