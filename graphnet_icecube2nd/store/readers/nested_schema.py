"""What a nested parquet file holds, and which structs are pulses and truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.arrow_values import (
    is_list,
    is_number,
    naming_damage,
    plain_type,
)
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    recognise_pulse_map,
    settle_pulse_map,
)
from graphnet_icecube2nd.store.readers.rows import open_parquet

# What Prometheus itself calls the angles that GraphNeT calls injection_...
_RAW_AZIMUTH, _RAW_ZENITH = "initial_state_azimuth", "initial_state_zenith"


@dataclass(frozen=True, kw_only=True)
class NestedSchema:
    """The columns of a nested parquet file.

    Args:
        name: What messages call the file.
        structs: Arrow types of the columns inside, by struct; those beside the
            structs stand under the empty name.
        num_rows: Events in it.
    """

    name: str
    structs: dict[str, dict[str, Any]]
    num_rows: int

    @classmethod
    def of(cls, path: Path) -> NestedSchema:
        """Look into a file.

        Raises:
            ValueError: It is damaged, has no structs, or no rows.
        """
        types, name = import_pyarrow().types, str(path)
        with open_parquet(path, name) as file, naming_damage(name):
            num_rows = file.metadata.num_rows
            fields = list(file.schema_arrow)
        structs: dict[str, dict[str, Any]] = {"": {}}
        for field in fields:
            kind = plain_type(field.type)
            if types.is_struct(kind):
                inner = [kind.field(index) for index in range(kind.num_fields)]
                structs[field.name] = {child.name: child.type for child in inner}
            else:
                structs[""][field.name] = kind
        if len(structs) == 1:
            raise ValueError(
                f"{name} has no struct of lists, one row an event; there is "
                f"{', '.join(structs[''])}"
            )
        if not num_rows:
            raise ValueError(f"{name} is empty: it has no rows")
        return cls(name=name, structs=structs, num_rows=num_rows)

    def lists(self, struct: str) -> tuple[str, ...]:
        """Return the columns of a struct that are lists of numbers."""
        return tuple(
            column
            for column, kind in self.structs[struct].items()
            if is_list(kind) and is_number(plain_type(kind).value_type)
        )

    def check_like(
        self, first: NestedSchema, columns: Iterable[tuple[str, str]]
    ) -> None:
        """See that columns are there and of the type they have in another file.

        Raises:
            ValueError: One is not.
        """
        for struct, column in columns:
            theirs = first.structs[struct][column]
            ours = self.structs.get(struct, {}).get(column)
            if ours is None or str(plain_type(ours)) != str(plain_type(theirs)):
                what = f"of type {ours}" if ours is not None else "missing"
                raise ValueError(
                    f"{self.name}: {f'{struct}.{column}'.lstrip('.')} is {what}; it is "
                    f"{theirs} in {first.name}"
                )


def choose_pulses(
    schema: NestedSchema, wanted: str | None, pulse_map: PulseMap | None
) -> tuple[str, PulseMap]:
    """Return the struct of the pulses and what its lists mean.

    Raises:
        ValueError: None fits, or several do; names them.
    """
    with_lists = [name for name in schema.structs if name and schema.lists(name)]
    if wanted is not None:
        if wanted not in with_lists:
            raise ValueError(
                f"{schema.name}: {wanted!r} is no struct of lists; there is "
                f"{', '.join(with_lists) or 'none'}"
            )
        fitting = [wanted]
    else:
        fitting = [name for name in with_lists if _fits(schema.lists(name), pulse_map)]
    if len(fitting) > 1:
        raise ValueError(
            f"{schema.name} has several structs of pulses: {', '.join(fitting)}. Name "
            "one: pulses=..."
        )
    if not fitting:
        there = "; ".join(
            f"{name}: {', '.join(schema.lists(name))}" for name in with_lists
        )
        raise ValueError(
            f"{schema.name} has no struct whose lists fit a pulse map; there is "
            f"{there or 'no struct of lists'}. Say what they mean: pulses=..., "
            "pulse_map=PulseMap(...)"
        )
    place = f"{schema.name}, {fitting[0]}"
    return fitting[0], settle_pulse_map(schema.lists(fitting[0]), pulse_map, place)


def choose_truth(
    schema: NestedSchema, wanted: str | bool | None, pulses: str, pulse_map: PulseMap
) -> tuple[str | None, PulseMap]:
    """Return the struct of the truth, or None, and the pulse map that names its angles.

    Raises:
        ValueError: No struct has the angles, or several have; names them.
    """
    if wanted is False:
        return None, pulse_map
    others = [name for name in schema.structs if name and name != pulses]
    if isinstance(wanted, str):
        if wanted not in others:
            raise ValueError(
                f"{schema.name} has no struct {wanted!r} for truth; there is "
                f"{', '.join(others) or 'none'}"
            )
        others = [wanted]
    maps = [pulse_map]
    if pulse_map == PulseMap.prometheus():
        raw = replace(pulse_map.labels, azimuth=_RAW_AZIMUTH, zenith=_RAW_ZENITH)
        maps.append(replace(pulse_map, labels=raw))
    for candidate in maps:
        angles = {candidate.labels.azimuth, candidate.labels.zenith}
        fitting = [name for name in others if angles <= set(schema.structs[name])]
        if len(fitting) > 1:
            raise ValueError(
                f"{schema.name} has several structs of truth: {', '.join(fitting)}. "
                "Name one: truth=..."
            )
        if fitting:
            return fitting[0], candidate
    labels = pulse_map.labels
    raise ValueError(
        f"{schema.name} has no struct of truth with columns {labels.azimuth!r} and "
        f"{labels.zenith!r}; there is {', '.join(others) or 'no other struct'}. "
        "Name the angles in the pulse map (azimuth=..., zenith=...), or do without: "
        "truth=False"
    )


def event_columns(
    schema: NestedSchema, pulses: str, truth: str | None, wanted: str | None
) -> tuple[tuple[str, str], ...]:
    """Return where event_ids are: pairs of struct, empty beside them, and column.

    Raises:
        ValueError: There is no column of the wanted name.
    """
    for column in (wanted,) if wanted else EVENT_COLUMNS:
        found = [
            (struct, column)
            for struct in dict.fromkeys(("", truth or "", pulses))
            if column in schema.structs[struct]
            and not is_list(schema.structs[struct][column])
        ]
        if found:
            return tuple(found)
    if wanted:
        raise ValueError(f"{schema.name} has no column {wanted!r} that names the event")
    return ()


def _fits(columns: tuple[str, ...], pulse_map: PulseMap | None) -> bool:
    if pulse_map is None:
        return recognise_pulse_map(columns) is not None
    return pulse_map.time in columns
