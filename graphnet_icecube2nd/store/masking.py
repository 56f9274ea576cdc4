"""Events as a smaller detector sees them: only the pulses on some strings.

Shape letters: T pulses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from graphnet_icecube2nd.conventions import SENSOR_ID, X, Y, Z
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.events.augmentation import MaskTo, need_modules
from graphnet_icecube2nd.store.readers.source import EventChunk, Source


@dataclass(frozen=True, kw_only=True)
class StringMask:
    """Removes the pulses of other strings; events may lose all pulses.

    Args:
        mask: The strings.
    """

    mask: MaskTo

    @classmethod
    def of(cls, source: Source, strings: str | Sequence[int]) -> Source:
        """Return a source with only the pulses on some strings.

        Args:
            source: The source.
            strings: Numbers of strings, or the name of a detector with such strings.

        Raises:
            ValueError: The detector of the source has no such strings, or its modules
                are not known.
        """
        if isinstance(strings, str):
            mask = MaskTo(detector=strings)
        else:
            mask = MaskTo(strings=tuple(strings))
        detector = _detector_of(source)
        known = dict.fromkeys(source.pulse_map.columns().values(), torch.empty(0))
        need_modules(mask.kind, known, detector)
        numbers = mask.numbers(detector)
        note = (
            f"only pulses on {len(numbers)} strings of {detector.name}: "
            f"{', '.join(map(str, numbers))}"
        )
        made = cls(mask=MaskTo(strings=tuple(numbers)))
        return replace(source, mask=made, notes=(*source.notes, note))

    def __call__(self, chunk: EventChunk, source: Source) -> EventChunk:
        """Return a chunk without the pulses on other strings."""
        detector, known = _detector_of(source), source.pulse_map.columns()
        columns = {
            known[name]: torch.from_numpy(np.asarray(values, np.float64))
            for name, values in chunk.columns.items()
            if known.get(name) in (X, Y, Z, SENSOR_ID)
        }
        # Pulses with impossible values stay: the conversion reports them.
        good_T = torch.stack([v.isfinite() for v in columns.values()]).all(0)
        if SENSOR_ID in columns:
            num_doms = len(detector.modules_or_icecube86)
            good_T &= (columns[SENSOR_ID] >= 0) & (columns[SENSOR_ID] < num_doms)
        keep_T = np.ones(len(good_T), np.bool_)
        good = {name: values[good_T] for name, values in columns.items()}
        keep_T[good_T.numpy()] = self.mask.keeps(good, detector)
        return replace(
            chunk,
            columns={name: np.asarray(v)[keep_T] for name, v in chunk.columns.items()},
            offsets=np.append(0, np.cumsum(keep_T))[chunk.offsets],
            first_row=None,
        )


def _detector_of(source: Source) -> Detector:
    if source.detector is not None:
        return source.detector
    modules = source.modules() if source.geometry is not None else None
    return Detector.from_pulse_map(source.pulse_map, modules)
