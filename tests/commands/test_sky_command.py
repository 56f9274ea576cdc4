"""skymap, as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")
pytest.importorskip("astropy_healpix")
pytest.importorskip("matplotlib")

import typer

from graphnet_icecube2nd import EventStore, EventTable, build_detector
from graphnet_icecube2nd.commands.pictures import skymap
from graphnet_icecube2nd.conventions import unit_vector_to_angles
from graphnet_icecube2nd.detector.site import Site
from graphnet_icecube2nd.inference.model_bundle import CalibrationFile
from graphnet_icecube2nd.report.sky.map import SkyMap
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.equatorial import to_equatorial

Call = Callable[..., None]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command with words as they are typed, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(skymap)

    def typed(*words: object) -> None:
        app([str(word) for word in words], standalone_mode=False)

    return typed


@pytest.fixture
def results(simulated: EventStore, tmp_path: Path) -> Path:
    """A table of the store's first events, right by the truth."""
    truth = EventTruth.of(simulated, [0, 1, 2])
    path = tmp_path / "results.csv"
    EventTable.from_vectors("results", truth.event_id, 300.0 * truth.direction_B3).save(
        path
    )
    return path


def first(store: EventStore) -> int:
    return int(store.whole_event_column("event_id")[0])


def test_a_map_and_its_picture(
    call: Call,
    results: Path,
    simulated: EventStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    event = first(simulated)
    call(results, event, "--picture", "map.png", "--truth", simulated.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"event_{event}.fits: NSIDE 128, ring, local coordinates"
    assert lines[1].startswith("  50%: radius 3.9 deg, 47.7 deg² (4")
    assert lines[1].endswith("pixels)")
    assert lines[2].startswith("  90%: radius 7.1 deg, 158 deg² (1")
    assert lines[3] == "map.png"
    made = SkyMap.load(tmp_path / f"event_{event}.fits")
    truth = EventTruth.of(simulated, [0]).direction_B3[0]
    np.testing.assert_allclose(made.direction, truth, atol=1e-6)
    assert made.kappa == pytest.approx(300.0)
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_options_reach_the_map(
    call: Call, results: Path, simulated: EventStore, tmp_path: Path
) -> None:
    words = ("--nside", 16, "--order", "nested", "--levels", "68,99.7")
    event = first(simulated)
    call(results, event, "--out", "new/a.fits.gz", *words, "--mjd", 57000.25)
    made = SkyMap.load(tmp_path / "new" / "a.fits.gz")
    assert (made.nside, made.order, made.event_id) == (16, "nested", event)
    assert made.levels == pytest.approx((0.68, 0.997))
    assert (made.coordinates, made.mjd) == ("equatorial", 57000.25)
    call(results, event, "--out", "b.fits", "--time", "2014-12-09T06:00:00")
    assert SkyMap.load(tmp_path / "b.fits").mjd == pytest.approx(57000.25)


@pytest.mark.parametrize("ending", ["parquet", "db", "csv"])
def test_the_site_is_that_of_the_detector(
    ending: str,
    call: Call,
    results: Path,
    simulated: EventStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    event, when = first(simulated), ("--mjd", 57000.25, "--nside", 8)
    table = EventTable.load(results)
    orca = build_detector("orca115")
    replace(table, detector=orca.name, site=orca.site).save(f"r.{ending}")
    call(f"r.{ending}", event, *when, "--out", "own.fits")
    printed, (own, given, other) = (
        capsys.readouterr().out,
        (
            (),
            ("--site", "orca115"),
            ("--site", "36.5,16.1"),
        ),
    )
    if ending == "csv":  # holds no detector
        assert "IceCube, since the table names no detector" in printed
        assert SkyMap.load("own.fits").site == build_detector("kaggle").site
    else:
        assert "42.8008, 6.02228 deg, its x axis at 87.9" in " ".join(printed.split())
        assert SkyMap.load("own.fits").site == orca.site
    call(results, event, *when, *given, "--out", "given.fits")
    made = SkyMap.load("given.fits")
    assert made.site == orca.site
    expected = to_equatorial(table.direction_B3[0], 57000.25, orca.site)
    zenith, ra = unit_vector_to_angles(made.direction)
    found = (float(ra), np.pi / 2 - float(zenith))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    call(f"r.{ending}", event, *when, *other, *own, "--out", "other.fits")
    assert SkyMap.load("other.fits").site == Site(latitude=36.5, longitude=16.1)
    assert "assumed" not in capsys.readouterr().out
    call(f"r.{ending}", event, *when, "--site", "pone", "--out", "pone.fits")
    assert "at 90.00 deg, assumed" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_site(call: Call, results: Path, simulated: EventStore) -> None:
    table = replace(EventTable.load(results), detector="demo_water")
    table.save("r.parquet")
    event = first(simulated)
    call("r.parquet", event, "--out", "local.fits")
    for given, message in (
        ((), "'demo_water' is not known.*--site LATITUDE,LONGITUDE"),
        (("--site", "demo_water"), "'demo_water' is not known"),
        (("--site", "1,2,3,4"), "got '1,2,3,4'"),
        (("--site", "95,0"), "latitude .* found 95"),
    ):
        with pytest.raises(ValueError, match=message):
            call("r.parquet", event, "--mjd", 57000, *given)


def test_a_calibration(
    call: Call, results: Path, simulated: EventStore, tmp_path: Path
) -> None:
    calibration = KappaCalibration(
        method="temperature",
        log_kappa=(0.0,),
        log_calibrated=(-1.0,),
        levels=(0.0,),
        depths=((0.0,),),
        num_events=1000,
    )
    CalibrationFile(calibrations={"direction": calibration}).save(
        tmp_path / "calibration.json"
    )
    words = ("--calibration", "calibration.json", "--out", "map.fits")
    call(results, first(simulated), *words)
    made = SkyMap.load(tmp_path / "map.fits")
    expected = float(kappa_to_radius(30.0, 0.9))
    assert made.contour(0.9).radius == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mjd", 57000, "--time", "2014-12-09"), "--mjd or --time"),
        (("--time", "yesterday"), "yesterday"),
        (("--site", "orca115"), "--mjd or --time"),
        (("--levels", "50;90"), "--levels must be comma-separated"),
        (("--levels", "0.5,150"), "levels .* 0 and 1"),
        (("--true-angles", "1,2"), "--picture"),
        (("--picture", "a.png", "--true-angles", "1"), "must be AZIMUTH,ZENITH"),
        (("--picture", "a.png", "--true-angles", "10,190"), "zenith from 0 to 180 deg"),
        (("--out", "map.dat"), "must end in .fits"),
        (("--picture", "a.doc"), "pictures end in one of"),
        (("--nside", 100), "nside must be a power of two"),
        (("--order", "up"), "order must be one of"),
    ],
)
def test_what_is_refused_leaves_nothing(
    words: tuple[object, ...],
    message: str,
    call: Call,
    results: Path,
    simulated: EventStore,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=message):
        call(results, first(simulated), *words)
    assert {p.name for p in tmp_path.iterdir()} == {"results.csv"}


def test_other_events(call: Call, results: Path) -> None:
    with pytest.raises(ValueError, match="has no event 123456789"):
        call(results, 123456789)
