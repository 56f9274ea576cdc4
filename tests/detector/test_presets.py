"""The detectors of the package: what all share, and numbers of their papers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphnet_icecube2nd import Detector, PulseMap, build_detector, list_detectors
from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.detector.detector import MEDIA
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.site import ARCA, BAIKAL, ORCA, SOUTH_POLE

# Modules, strings, distance of neighbours on a string and between strings, m.
SIZES = {
    "orca6": (108, 6, 9.4, 20.0),
    "orca10": (180, 10, 9.3, 20.0),
    "orca23": (414, 23, 9.3, 20.0),
    "orca115": (2070, 115, 9.3, 18.0),
    "arca21": (378, 21, 36.8, 84.0),
    "arca115": (2070, 115, 36.0, 84.0),
    "baikal_gvd": (2304, 64, 15.0, 52.0),
}


@pytest.mark.parametrize("name", list_detectors())
def test_what_all_have_in_common(name: str) -> None:
    detector = build_detector(name)
    assert detector.medium in MEDIA
    assert detector.pmts >= 1
    assert detector.scales.interval_speed == pytest.approx(18.0)
    if detector.site is not None:
        assert detector.depth is not None
        assert 900 < detector.depth < 3500
    if detector.modules is None:
        assert name in ("prometheus", "km3net")
        return
    assert detector.source
    position_S3 = detector.modules.position_S3
    assert len(torch.unique(position_S3[:, :2], dim=0)) >= 3
    # Features are of the order of 1, and the origin is inside the detector.
    scaled_S3 = position_S3 / detector.scales.position
    assert 0.3 < float(scaled_S3.abs().max()) < 12
    if name not in ("deepcore", "prometheus_upgrade"):  # off IceCube's centre
        low_3, high_3 = position_S3.aminmax(dim=0)
        assert (low_3 <= 0).all()
        assert (high_3 >= 0).all()


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    modules = build_detector(name).modules
    assert modules is not None
    num_modules, num_strings, step, apart = SIZES[name]
    strings = torch.unique(modules.string_S).tolist()
    assert (len(modules), len(strings)) == (num_modules, num_strings)
    places = []
    for string in strings:
        here_S3 = modules.position_S3[modules.string_S == string].numpy()
        places.append(here_S3[:, :2].mean(axis=0))
        assert np.diff(np.sort(here_S3[:, 2])).mean() == pytest.approx(step, rel=0.03)
    gap = np.linalg.norm(np.array(places)[:, None] - np.array(places), axis=-1)
    np.fill_diagonal(gap, np.inf)
    assert np.median(gap.min(axis=0)) == pytest.approx(apart, rel=0.12)


def test_positions_of_km3net() -> None:
    """Modules by hand from km3net-testdata (MIT), detx; centres of their PMTs."""
    for name, row, place in (
        ("arca115", 0, (-23.062, 49.750, 65.0)),
        ("orca6", 0, (431.1, 583.5, 28.1)),
    ):
        detector = build_detector(name)
        assert detector.modules is not None
        found = detector.modules.position_S3[row] + torch.tensor(detector.pulses.origin)
        assert found.tolist() == pytest.approx(place, abs=0.3)
        assert detector.vectors == (("dir_x", "dir_y", "dir_z"),)


def test_parts_of_orca() -> None:
    """Ten strings are among 23 and contain, within 3 m, the six that were surveyed."""

    def places(name: str) -> torch.Tensor:
        detector = build_detector(name)
        assert detector.modules is not None
        own = detector.modules.position_S3 + torch.tensor(detector.pulses.origin)
        return torch.unique(own[:, :2].round(decimals=2), dim=0)

    for few, many, away in (("orca6", "orca10", 3.0), ("orca10", "orca23", 0.1)):
        assert float(torch.cdist(places(few), places(many)).min(1).values.max()) < away


@pytest.mark.parametrize(
    ("name", "absorption"), [("baikal_gvd", 22.0), ("orca6", 60.0), ("ring", 22.0)]
)
def test_media(name: str, absorption: float) -> None:
    if name == "ring":
        pulses = PulseMap(name="ring")
        detector = Detector(name="ring", pulses=pulses, medium="lake water")
    else:
        detector = build_detector(name)
    found = detector.medium_optics.lengths_at(torch.tensor([-500.0, 0.0]))
    assert found[:, 1].tolist() == [absorption, absorption]
    with pytest.raises(ValueError, match="lake water, got 'oil'"):
        replace(detector, medium="oil")


def test_sites() -> None:
    expected = {"kaggle": SOUTH_POLE, "upgrade": SOUTH_POLE, "orca23": ORCA}
    expected |= {"arca21": ARCA, "nubench_cluster": BAIKAL}
    for name, site in expected.items():
        detector = build_detector(name)
        assert detector.site == site
        back = Detector.from_dict(detector.to_dict(), detector.pulses)
        assert back.site == site
    assert Detector.from_pulse_map(PulseMap.kaggle()).site == SOUTH_POLE
    assert build_detector("demo_water").site is None


@pytest.mark.parametrize(("name", "is_assumed"), [("pone", True), ("orca6", False)])
def test_an_assumed_bearing_is_said(
    name: str, is_assumed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer")
    from graphnet_icecube2nd.commands.catalogue import detectors

    detectors(name)
    printed = capsys.readouterr().out
    assert ("assumed" in printed) == ("*" in printed) == is_assumed


def test_older_stores_have_a_rounded_south_pole() -> None:
    kaggle = build_detector("kaggle")
    site = {"latitude": -89.99, "longitude": -63.453, "height": 885.0}
    older = Detector.from_dict({**kaggle.to_dict(), "site": site}, kaggle.pulses)
    assert older.site == SOUTH_POLE
    other = {"latitude": 42.8, "longitude": 6.0, "height": -2440.0}
    older = Detector.from_dict({**kaggle.to_dict(), "site": other}, kaggle.pulses)
    assert to_plain(older.site) == {**other, "bearing": 90.0}


def test_modules_elsewhere_have_no_site() -> None:
    kaggle, every = build_detector("kaggle"), DetectorGeometry.icecube86()
    here = every.string_S < 60
    part = DetectorGeometry(
        name="part",
        position_S3=every.position_S3[here],
        string_S=every.string_S[here],
        rde_S=every.rde_S[here],
    )
    assert kaggle.with_tables(part).site == SOUTH_POLE
    orca = build_detector("orca115").modules
    assert kaggle.with_tables(orca).site is None
    assert build_detector("orca6").with_tables(orca).site == ORCA


def test_surveys_of_one_detector_are_one_telescope() -> None:
    """In the coordinates of the files or of the centre; moved by the current."""
    orca, modules = build_detector("orca6"), build_detector("orca6").modules
    assert modules is not None
    in_files = modules.moved([-value - 3.0 for value in orca.pulses.origin])
    found = orca.with_tables(in_files)
    assert found.telescope == "orca6"
    assert found.modules is not None
    gap_S3 = found.modules.position_S3 - modules.position_S3
    assert gap_S3.abs().max().item() == pytest.approx(3.0)
    other = orca.with_tables(modules.moved([20.0, 30.0, 0.0]))
    assert other.telescope.startswith("orca6 with geometry")
    gen2 = build_detector("gen2")
    assert gen2.with_tables(gen2.modules).modules is gen2.modules
