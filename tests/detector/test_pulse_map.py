"""What the columns of a file mean, and what they become."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from graphnet_icecube2nd import FEATURE_NAMES, PulseMap
from graphnet_icecube2nd.detector.pulse_map import TIME_REFERENCES, Scales

BY_NAME = ("kaggle", "icecube86", "upgrade", "prometheus", "km3net")


class TestKnownFiles:
    def test_kaggle(self) -> None:
        pulse_map = PulseMap.kaggle()
        names = ("x", "y", "z", "time", "charge", "auxiliary", "sensor_id")
        assert pulse_map.columns() == {name: name for name in names}
        assert pulse_map.time_reference == "window"
        assert (pulse_map.qe, pulse_map.ice) == ("rde", "correct")
        assert pulse_map.labels.angles == "origin"

    def test_icecube86(self) -> None:
        assert PulseMap.icecube86().columns() == {
            **{"dom_x": "x", "dom_y": "y", "dom_z": "z", "dom_time": "time"},
            **{"charge": "charge", "hlc": "hlc", "rde": "rde"},
        }

    def test_upgrade(self) -> None:
        pulse_map = PulseMap.upgrade()
        pmt = ("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")
        assert pulse_map.columns() == {
            **PulseMap.icecube86().columns(),
            **{name: name for name in pmt},
        }
        assert pulse_map.feature_names == (*FEATURE_NAMES, *pmt)

    def test_prometheus(self) -> None:
        pulse_map = PulseMap.prometheus()
        assert pulse_map.columns() == {
            **{f"sensor_pos_{axis}": axis for axis in "xyz"},
            "t": "time",
        }
        assert pulse_map.ice == "none"
        assert pulse_map.time_reference == "first_pulse"
        assert pulse_map.labels.angles == "flight"
        assert PulseMap.prometheus(angles="origin").labels.angles == "origin"

    def test_km3net(self) -> None:
        pulse_map = PulseMap.km3net()
        assert pulse_map.columns() == {
            **{name: name for name in ("x", "y", "z", "tot")},
            **{"t": "time", "trig": "hlc"},
        }
        assert pulse_map.charge is None
        assert pulse_map.ice == "none"
        assert pulse_map.time_reference == "first_pulse"
        labels = pulse_map.labels
        assert (labels.azimuth, labels.zenith, labels.angles) == (
            "azimuth_source",
            "zenith_source",
            "origin",
        )
        longest = torch.tensor([255.0, 0.0])  # tot is a byte
        assert pulse_map.scale("tot", longest).tolist() == [1, 0]

    @pytest.mark.parametrize("name", BY_NAME)
    def test_by_name(self, name: str) -> None:
        pulse_map = PulseMap.by_name(name)
        assert pulse_map == getattr(PulseMap, name)()
        assert pulse_map.name == name
        changed = PulseMap.by_name(name, origin=(1.0, 2.0, 3.0))
        assert changed.origin == (1.0, 2.0, 3.0)
        assert changed.columns() == pulse_map.columns()

    def test_unknown_name(self) -> None:
        message = "no pulse map 'gen2'; choose from kaggle, icecube86, upgrade"
        with pytest.raises(ValueError, match=message):
            PulseMap.by_name("gen2")

    @pytest.mark.parametrize("name", BY_NAME)
    def test_as_published(self, name: str) -> None:
        """The two slips of the competition's code, and nothing else."""
        pulse_map = PulseMap.by_name(name)
        published = pulse_map.as_published()
        assert (published.qe, published.ice) == ("published", "mirrored")
        differing = {
            key
            for key, value in published.to_dict().items()
            if value != pulse_map.to_dict()[key]
        }
        assert differing == {"qe", "ice"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"time_reference": "trigger"},
                "time_reference must be one of window, first_pulse, first_triggered; "
                "got 'trigger'",
            ),
            ({"time_reference": "first_triggered"}, "needs a column hlc or auxiliary"),
            ({"qe": "high"}, "qe must be one of rde, published; got 'high'"),
            (
                {"ice": "clear"},
                "ice must be one of correct, mirrored, none; got 'clear'",
            ),
            (
                {"angles": "momentum"},
                "angles must be one of origin, flight; got 'momentum'",
            ),
            ({"y": None}, "columns x, y, z or a sensor_id are needed"),
            (
                {"auxiliary": "auxiliary", "hlc": "hlc"},
                "auxiliary and hlc are one flag in two polarities",
            ),
            ({"extra": ("tot",)}, "1 extra columns, but 0 scales"),
            ({"extra_scale": (2.0,)}, "0 extra columns, but 1 scales"),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            PulseMap(**{"name": "mine", **changes})
        assert "angles" in changes or "'mine'" in str(caught.value)

    def test_keywords_only_and_frozen(self) -> None:
        with pytest.raises(TypeError, match="positional"):
            PulseMap("mine")  # type: ignore[misc]
        with pytest.raises(FrozenInstanceError):
            PulseMap.kaggle().time = "t"  # type: ignore[misc]
        with pytest.raises(TypeError, match="tiem"):
            PulseMap.kaggle(tiem="t")


class TestAsPlainValues:
    @pytest.mark.parametrize("name", BY_NAME)
    def test_round_trip(self, name: str) -> None:
        pulse_map = PulseMap.by_name(name, origin=(1.5, 0.0, -3.0))
        text = json.dumps(pulse_map.to_dict())
        again = PulseMap.from_dict(json.loads(text))
        assert again == pulse_map
        assert hash(again) == hash(pulse_map)

    def test_unknown_key(self) -> None:
        values = {**PulseMap.kaggle().to_dict(), "timing": "t", "colour": "red"}
        with pytest.raises(ValueError, match="timing is unknown; did you mean"):
            PulseMap.from_dict(values)


class TestScale:
    @staticmethod
    def scaled(pulse_map: PulseMap, quantity: str, *values: float) -> list[float]:
        value_T = torch.tensor(values, dtype=torch.float64)
        return pulse_map.scale(quantity, value_T).tolist()

    def test_published_scales(self) -> None:
        """x / 500, (t - 1e4) / 3e4, log10(q) / 3: what the weights were trained on."""
        pulse_map = PulseMap.kaggle()
        for axis in "xyz":
            assert self.scaled(pulse_map, axis, -500, 250) == [-1, 0.5]
        assert self.scaled(pulse_map, "time", 10_000, 40_000, 7_000) == [0, 1, -0.1]
        assert self.scaled(pulse_map, "charge", 1, 1000, 0.1) == pytest.approx(
            [0, 1, -1 / 3]
        )
        assert self.scaled(pulse_map, "auxiliary", 0, 1) == [0, 1]
        assert self.scaled(pulse_map, "sensor_id", 0, 5159) == [0, 5159]

    def test_detector_elsewhere(self) -> None:
        pulse_map = PulseMap(name="sea", origin=(10.0, -20.0, -3000.0))
        assert self.scaled(pulse_map, "x", 510) == [1]
        assert self.scaled(pulse_map, "y", -20) == [0]
        assert self.scaled(pulse_map, "z", -3250) == [-0.5]

    def test_first_pulse(self) -> None:
        pulse_map = PulseMap(name="sea", time_reference="first_pulse")
        found = self.scaled(pulse_map, "time", 1e8 + 30_000, 1e8, 1e8 + 3)
        assert found == [1, 0, 1e-4]

    def test_hlc_is_turned(self) -> None:
        assert self.scaled(PulseMap.icecube86(), "hlc", 1, 0) == [0, 1]

    def test_rde_becomes_a_flag(self) -> None:
        found = self.scaled(PulseMap.icecube86(), "rde", 1.0, 1.35, 1.1)
        assert found == [0, 1, 0]

    def test_extra(self) -> None:
        pulse_map = PulseMap(name="sea", extra=["tot"], extra_scale=[50.0])
        assert self.scaled(pulse_map, "tot", 100) == [2]
        assert pulse_map.feature_names == (*FEATURE_NAMES, "tot")
        assert pulse_map.columns()["tot"] == "tot"

    def test_unscale_gives_the_columns_back(self) -> None:
        scales = Scales(position=70.0, time=900.0, charge_decades=2.0)
        extra = {"extra": ("tot",), "extra_scale": (255.0,)}
        for clock in TIME_REFERENCES:
            pulse_map = PulseMap.kaggle(
                origin=(1.0, -2.0, -3000.0), time_reference=clock, **extra
            )
            value_T = torch.tensor([0.0, 0.5, 4000.0], dtype=torch.float64)
            for quantity in ("x", "y", "z", "time", "tot"):
                scaled_T = pulse_map.scale(quantity, value_T, scales)
                found_T = pulse_map.unscale(quantity, scaled_T, scales)
                torch.testing.assert_close(found_T, value_T, msg=quantity)
            scaled_T = pulse_map.scale("charge", value_T[1:], scales)
            found_T = pulse_map.unscale("charge", scaled_T, scales)
            torch.testing.assert_close(found_T, value_T[1:])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dtype_is_kept(self, dtype: torch.dtype) -> None:
        pulse_map = PulseMap.upgrade(sensor_id="sensor_id")
        for quantity in pulse_map.columns().values():
            value_T = torch.tensor([1.0, 0.5], dtype=dtype)
            assert pulse_map.scale(quantity, value_T).dtype == dtype, quantity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": "z"}, "column z stands for two quantities"),
        ({"extra": ("qe",), "extra_scale": (1.0,)}, "qe has the name of a feature"),
        ({"extra": ("tot",), "extra_scale": (0.0,)}, "extra_scale is 0"),
        ({"origin": (0.0, 1.0)}, "origin .* x, y, z"),
        ({"time": None}, "a time column is needed"),
    ],
)
def test_what_no_pulse_map_can_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PulseMap.kaggle(**changes)


def test_how_to_leave_a_column_out_is_code_that_works() -> None:
    for pulse_map in (PulseMap.kaggle(), PulseMap.icecube86()):
        without = eval(pulse_map.code_without("charge"))
        assert without.charge is None
        assert without.name == pulse_map.name
    assert PulseMap(name="mine").code_without("charge") == "PulseMap(..., charge=None)"


def test_what_stands_in_for_what() -> None:
    both = PulseMap.kaggle()
    rest = ["time", "charge", "auxiliary"]
    assert both.missing([*"xyz", *rest]) == []
    assert both.missing(["sensor_id", *rest]) == []
    assert both.missing(["x", *rest]) == ["sensor_id"]
    assert PulseMap.kaggle(sensor_id=None).missing(["x", *rest]) == ["y", "z"]
    assert PulseMap.icecube86().missing([*"xyz", "time", "charge"]) == ["hlc"]
