"""The list of perturbations: what is in it, and what a store does not allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.evaluation.robustness import (
    BASELINE,
    Perturbation,
    default_perturbations,
    first_times_of,
)
from graphnet_icecube2nd.events.augmentation import FirstPulseAt
from graphnet_icecube2nd.inference.inference_config import InferenceConfig

BASE = Perturbation(group=BASELINE, strength="as stored")


def test_default_perturbations(simulated: EventStore) -> None:
    options = InferenceConfig(max_pulses=192)
    rows = default_perturbations(simulated, range(50), options)
    assert rows[0] == BASE
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {row.group: 0 for row in rows}.keys() >= {
        *("time jitter", "time offset of the event", "start of the window taken away"),
        *("charge scale", "charge jitter of the pulse", "added noise", "DOMs off"),
        *("strings off", "mirrored", "selection", "longest event"),
    }
    assert "strings off, 10 in 86" in names
    assert [r.strength for r in rows if r.group == "selection"] == [
        "hlc_first",
        "first",
    ]
    assert [r.max_pulses for r in rows if r.group == "longest event"] == [96, 384]
    median = np.median(first_times_of(simulated, range(50), options))
    aligned = [r for r in rows if r.strength.startswith("first pulse at median")]
    assert aligned[0].augmentations == (FirstPulseAt(time=float(round(median))),)
    seen = aligned[0].options(options)
    assert seen == options
    few = default_perturbations(
        simulated, range(5), InferenceConfig(max_pulses=96, selection="first")
    )
    assert [r.selection for r in few if r.group == "selection"] == [
        "uniform",
        "hlc_first",
    ]
    assert [r.max_pulses for r in few if r.group == "longest event"] == [192, 384]


def test_what_a_store_lacks_is_left_out(
    simulated: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks that start with the event, and columns that are not there."""

    def groups(**changes: Any) -> set[str]:
        changed = replace(pulse_map, **changes)
        monkeypatch.setattr(EventStore, "pulse_map", property(lambda _: changed))
        rows = default_perturbations(simulated, range(9), InferenceConfig())
        return {row.name if row.group == "selection" else row.group for row in rows}

    pulse_map = simulated.pulse_map
    every = groups()
    assert every - groups(time_reference="first_pulse") == {
        *("time offset of the event", "start of the window taken away")
    }
    assert every - groups(auxiliary=None) == {"selection, hlc_first"}
