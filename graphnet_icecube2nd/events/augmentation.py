"""Augmentations: changes to training events that leave them likely.

Each acts on all events of a batch at once, on columns in physical units, before
features are made of them. What an event becomes depends on (seed, epoch, event_id)
and its own pulses alone, so neither batches nor workers change it.

The order is: selection, then augmentations, then features. A store reads only the
pulses that selection keeps, so augmentations see no others. `AddNoise` may then lift an
event over `max_pulses`; who needs that bound cuts such an event again, with the same
selection. Pulses come out in the order of time where times have changed. Where only
time differences count (`time_reference="first_pulse"`), the reader puts the
first pulse at hand back to where it was before the augmentations.

Shape letters: T pulses, B events, N noise pulses, S DOMs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, Protocol

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.augmentation_detector import AddNoise, RotateAboutZ
from graphnet_icecube2nd.events.augmentation_pulses import (
    ChargeScale,
    DropDoms,
    DropStrings,
    TimeJitter,
    TimeOffset,
)
from graphnet_icecube2nd.events.events import Events
from graphnet_icecube2nd.events.random_numbers import SELECTION_STREAM, RandomKey

__all__ = [
    "AddNoise",
    "Augmentation",
    "ChargeScale",
    "DropDoms",
    "DropStrings",
    "RotateAboutZ",
    "TimeJitter",
    "TimeOffset",
    "apply_augmentations",
    "augmentation_from_dict",
    "augmentation_to_dict",
    "check_order",
]

_OURS = (
    TimeJitter,
    TimeOffset,
    ChargeScale,
    DropDoms,
    DropStrings,
    AddNoise,
    RotateAboutZ,
)
_KINDS: dict[str, Any] = {ours.kind: ours for ours in _OURS}


class Augmentation(Protocol):
    """Something that changes events; your own may be any callable of this form."""

    def __call__(self, events: Events, key: RandomKey, detector: Detector) -> Events:
        """Return the changed events; those given are left as they are.

        Args:
            events: The events.
            key: What random numbers are drawn from.
            detector: Whose events they are, in its coordinates.
        """


def apply_augmentations(
    events: Events,
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    epoch: int = 0,
    detector: Detector,
) -> Events:
    """Return the events after all augmentations, one after the other.

    An augmentation draws its numbers by its place in the list, so that one may stand
    there twice.

    Args:
        events: The events, on the CPU; they are left as they are.
        augmentations: In the order in which they act.
        seed: Any whole number.
        epoch: A new epoch changes the same event in another way.
        detector: Whose events they are, in its coordinates.

    Raises:
        ValueError: A column is missing or unknown to an augmentation, or noise comes
            after a turn: its DOMs would not have turned.
    """
    check_order(augmentations)
    for place, augmentation in enumerate(augmentations):
        key = RandomKey(seed=seed, epoch=epoch, stream=SELECTION_STREAM + 1 + place)
        events = augmentation(events, key, detector)
    return events


def check_order(augmentations: Sequence[Augmentation]) -> None:
    """See that no noise comes after a turn, at DOMs that have not turned.

    Raises:
        ValueError: It does.
    """
    turned = False
    for augmentation in augmentations:
        if turned and isinstance(augmentation, AddNoise):
            raise ValueError(
                f"{AddNoise.kind} must come before {RotateAboutZ.kind}: its pulses are "
                "at DOMs that have not been turned"
            )
        turned |= isinstance(augmentation, RotateAboutZ)


def augmentation_to_dict(augmentation: Augmentation) -> dict[str, Any]:
    """Return plain values that YAML and JSON can hold: `kind` and its arguments.

    Raises:
        ValueError: It is none of those defined here.
    """
    if not isinstance(augmentation, _OURS):
        raise ValueError(
            f"only {', '.join(_KINDS)} can be written down, not "
            f"{type(augmentation).__name__}"
        )
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(augmentation).items()
    }
    return {"kind": augmentation.kind, **values}


def augmentation_from_dict(values: Mapping[str, Any]) -> Augmentation:
    """Rebuild what `augmentation_to_dict` gave; what has a default may be left out.

    Raises:
        ValueError: No or an unknown `kind`, an unknown or missing argument, or a value
            that is not allowed.
    """
    arguments = dict(values)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"no augmentation {kind!r}; kind is one of {', '.join(_KINDS)}"
        )
    known = fields(_KINDS[kind])
    names = [field.name for field in known]
    if unknown := sorted(set(arguments) - set(names)):
        raise ValueError(
            f"{kind} has no {', '.join(map(str, unknown))}; it has {', '.join(names)}"
        )
    needed = [field.name for field in known if field.default is MISSING]
    if missing := [name for name in needed if name not in arguments]:
        raise ValueError(f"{kind} needs {', '.join(missing)}")
    made: Augmentation = _KINDS[kind](**arguments)
    return made
