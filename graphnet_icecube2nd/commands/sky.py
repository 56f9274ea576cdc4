"""The command that makes sky maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def skymap(
    results: Annotated[
        Path,
        typer.Argument(
            help="Table of directions (parquet, CSV or SQLite with event_id, "
            "direction_x, _y, _z, kappa), as `icecube2nd reconstruct` writes it."
        ),
    ],
    event: Annotated[int, typer.Argument(help="The event_id.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The map: .fits or .fits.gz. Default: event_<id>.fits."),
    ] = None,
    nside: Annotated[
        int | None,
        typer.Option(
            help="HEALPix's NSIDE, a power of two. Default: 64 to 1024, so that 100 "
            "pixels lie within the 50% contour."
        ),
    ] = None,
    order: Annotated[str, typer.Option(help="ring or nested.")] = "ring",
    mjd: Annotated[
        float | None,
        typer.Option(
            help="Time of the event, UTC, days: the map is in right ascension and "
            "declination then, else in the detector's zenith and azimuth."
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The same as 2021-06-30T00:09:28.846.")
    ] = None,
    levels: Annotated[str, typer.Option(help="Contours, percent.")] = "50,90",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A calibration.json, if the table's kappa is not calibrated yet."
        ),
    ] = None,
    result_angles: Annotated[
        str, typer.Option(help="origin or flight: what the results' directions mean.")
    ] = "origin",
    picture: Annotated[
        Path | None, typer.Option(help="A picture as well: .png, .pdf, .svg.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="A store with the event's true direction, for the picture."),
    ] = None,
    true_angles: Annotated[
        str | None,
        typer.Option(
            metavar="AZIMUTH,ZENITH",
            help="The true direction, deg, in place of --truth.",
        ),
    ] = None,
) -> None:
    """Write the sky map of an event as FITS, with its contours."""
    import numpy as np

    from graphnet_icecube2nd.commands.parsing import shares
    from graphnet_icecube2nd.inference.model_bundle import CalibrationFile
    from graphnet_icecube2nd.plots import save_figure
    from graphnet_icecube2nd.report.sky.map import check_name, sky_map_of_event
    from graphnet_icecube2nd.report.sky.picture import area_in_words, draw_sky_map
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.tasks.direction.equatorial import time_to_mjd

    if mjd is not None and time is not None:
        raise ValueError("give --mjd or --time, not both")
    if truth is not None and true_angles is not None:
        raise ValueError("give --truth or --true-angles, not both")
    if picture is None and (truth is not None or true_angles is not None):
        raise ValueError("a true direction is for the picture: give --picture, too")
    out = check_name(out or f"event_{event}.fits")
    made = sky_map_of_event(
        EventTable.load(results, angles=result_angles),
        event,
        nside=nside,
        order=order,
        calibration=(
            None
            if calibration is None
            else CalibrationFile.load(calibration).calibration
        ),
        levels=shares(levels, "--levels"),
        mjd=mjd if time is None else time_to_mjd(time),
    )
    if picture is not None:
        figure = draw_sky_map(made, _truth(truth, true_angles, event))
        save_figure(figure, picture)
    made.save(out)
    print(f"{out}: NSIDE {made.nside}, {made.order}, {made.coordinates} coordinates")
    for contour in made.contours():
        print(
            f"  {100 * contour.level:g}%: radius {np.degrees(contour.radius):.3g} deg, "
            f"{area_in_words(contour.area)} ({area_in_words(contour.pixel_area)} in "
            f"{contour.num_pixels:,} pixels)"
        )
    if picture is not None:
        print(picture)


def _truth(
    store: Path | None, angles: str | None, event: int
) -> NDArray[np.float64] | None:
    """Return the true direction, (3,), or None."""
    import numpy as np

    from graphnet_icecube2nd.commands.parsing import numbers
    from graphnet_icecube2nd.conventions import angles_to_unit_vector
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.store.event_store import EventStore

    if angles is not None:
        given = numbers(angles, "--true-angles")
        if len(given) != 2:
            raise ValueError(f"--true-angles must be AZIMUTH,ZENITH, got {angles!r}")
        azimuth, zenith = np.radians(given)
        direction: NDArray[np.float64] = angles_to_unit_vector(zenith, azimuth).numpy()
        return direction
    if store is None:
        return None
    opened = EventStore(store)
    known = EventTruth.of(opened, [opened.find(event)])
    return known.direction_B3.reshape(3)
