"""Commands that draw an event or the sky map of its direction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from graphnet_icecube2nd.detector.site import Site


def show(
    store: Annotated[Path, typer.Argument(help="Event store.")],
    event: Annotated[int, typer.Argument(help="event_id of the event.")],
    out: Annotated[
        Path | None,
        option(
            "Picture (.png, .pdf, .svg) or interactive page (.html). Default: "
            "event_<id>.png."
        ),
    ] = None,
    directions: Annotated[
        list[Path] | None,
        option(
            "Results table to draw as well: parquet, CSV or SQLite with event_id, "
            "direction_x, direction_y, direction_z. Repeat the option for several. The "
            "page also shows the cone of radius_50 or kappa, if the table has one."
        ),
    ] = None,
    result_angles: options.ResultAngles = "origin",
    line_fit: Annotated[bool, option("Draw the line fit.", "--line-fit")] = False,
    auxiliary: Annotated[
        bool, option("Draw auxiliary pulses (not HLC) as well.", "--auxiliary")
    ] = False,
) -> None:
    """Draw an event: strings, pulses, the true and the reconstructed directions."""
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.store.event_store import EventStore

    opened = EventStore(store)
    number = opened.find(event)
    tables = [line_fit_events(opened, [number])] if line_fit else []
    for path in directions or []:
        table = EventTable.load(path, path.stem, result_angles)
        if event not in table.event_id:
            raise ValueError(
                f"{path}: the table must have event {event} of the store, found none"
            )
        if not table.has_direction:
            raise ValueError(
                f"{path}: the table must have columns direction_x, direction_y, "
                "direction_z to be drawn, found none"
            )
        tables.append(table)
    out = out or Path(f"event_{event}.png")
    if out.suffix.lower() == ".html":
        from graphnet_icecube2nd.report.event.page import write_event_page

        write_event_page(out, opened, number, tables, with_auxiliary=auxiliary)
    else:
        from graphnet_icecube2nd.plots import save_figure
        from graphnet_icecube2nd.report.event.display import draw_event

        figure = draw_event(opened, number, tables, with_auxiliary=auxiliary)
        save_figure(figure, out)
    print(out)


def skymap(
    results: Annotated[
        Path,
        typer.Argument(
            help="Results table as `icecube2nd reconstruct` writes it: parquet, CSV or "
            "SQLite with event_id, direction_x, direction_y, direction_z, kappa."
        ),
    ],
    event: Annotated[int, typer.Argument(help="event_id of the event.")],
    out: Annotated[
        Path | None,
        option("Map to write, .fits or .fits.gz. Default: event_<id>.fits."),
    ] = None,
    nside: Annotated[
        int | None,
        option(
            "NSIDE of the HEALPix map, a power of two. Default: 64 to 1024, so that "
            "100 pixels lie within the 50% contour."
        ),
    ] = None,
    order: Annotated[str, option("Pixel order: ring or nested.")] = "ring",
    mjd: Annotated[
        float | None,
        option(
            "Time of the event as a modified Julian date, UTC, days. The map then uses "
            "right ascension and declination instead of the detector's zenith and "
            "azimuth."
        ),
    ] = None,
    time: Annotated[
        str | None,
        option("Time of the event, UTC, such as 2021-06-30T00:09:28.846."),
    ] = None,
    site: Annotated[
        str | None,
        option(
            "Position of the detector, for --mjd and --time: the name of a detector "
            "(see `icecube2nd detectors`), or LATITUDE,LONGITUDE, deg, optionally with "
            "the compass bearing of the x axis (90: x points east). Default: that of "
            "the table's detector, or IceCube if the table does not name one."
        ),
    ] = None,
    levels: Annotated[str, option("Contour levels, percent.")] = "50,90",
    calibration: Annotated[
        Path | None,
        option("Calibration file, for a table whose kappa is not calibrated yet."),
    ] = None,
    result_angles: options.ResultAngles = "origin",
    picture: Annotated[
        Path | None, option("Picture to draw as well: .png, .pdf, .svg.")
    ] = None,
    truth: Annotated[
        Path | None,
        option("Event store with the true direction, drawn in the picture."),
    ] = None,
    true_angles: Annotated[
        str | None,
        typer.Option(
            metavar="AZIMUTH,ZENITH",
            help="True direction, deg, given instead of --truth.",
        ),
    ] = None,
) -> None:
    """Write the sky map of an event as FITS and print its contours."""
    import numpy as np

    from graphnet_icecube2nd.inference.model_bundle import CalibrationFile
    from graphnet_icecube2nd.plots import save_figure
    from graphnet_icecube2nd.report.sky.map import check_name, sky_map_of_event
    from graphnet_icecube2nd.report.sky.picture import area_in_words, draw_sky_map
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.tasks.direction.equatorial import time_to_mjd

    if mjd is not None and time is not None:
        raise ValueError("give either --mjd or --time, found both")
    if truth is not None and true_angles is not None:
        raise ValueError("give either --truth or --true-angles, found both")
    if picture is None and (truth is not None or true_angles is not None):
        raise ValueError(
            "--truth and --true-angles are drawn in the picture: give --picture as well"
        )
    if site is not None and mjd is None and time is None:
        raise ValueError(
            "--site is for right ascension and declination: give --mjd or --time too"
        )
    out = check_name(out or f"event_{event}.fits")
    table = EventTable.load(results, angles=result_angles)
    stored = None if calibration is None else CalibrationFile.load(calibration)
    made = sky_map_of_event(
        table,
        event,
        site=None if site is None else _site(site),
        nside=nside,
        order=order,
        calibration=None if stored is None else stored.calibration,
        levels=options.shares(levels, "--levels"),
        mjd=mjd if time is None else time_to_mjd(time),
    )
    if picture is not None:
        figure = draw_sky_map(made, _true_direction(truth, true_angles, event))
        save_figure(figure, picture)
    made.save(out)
    print(f"{out}: NSIDE {made.nside}, {made.order}, {made.coordinates} coordinates")
    if made.mjd is not None:
        where = f"{made.site.latitude:g}, {made.site.longitude:g} deg"
        where += f", its x axis at {made.site.x_axis}, from north to east"
        if site is None and not table.detector:
            where += " (IceCube, since the table names no detector; --site)"
        print(f"  site of the detector: latitude, longitude {where}")
    for contour in made.contours():
        print(
            f"  {100 * contour.level:g}%: radius {np.degrees(contour.radius):.3g} deg, "
            f"{area_in_words(contour.area)} ({area_in_words(contour.pixel_area)} in "
            f"{contour.num_pixels:,} pixels)"
        )
    if picture is not None:
        print(picture)


def _site(text: str) -> Site:
    """Return the site of a detector's name or of numbers."""
    from graphnet_icecube2nd.detector.presets import build_detector
    from graphnet_icecube2nd.detector.site import Site

    if "," not in text:
        if (known := build_detector(text).site) is None:
            raise ValueError(
                f"--site: the position of detector {text!r} is not known; give "
                "LATITUDE,LONGITUDE,BEARING"
            )
        return known
    given = options.numbers(text, "--site")
    if len(given) not in (2, 3):
        raise ValueError(
            f"--site must be a detector or LATITUDE,LONGITUDE[,BEARING], got {text!r}"
        )
    names = ("latitude", "longitude", "bearing")
    return Site(**dict(zip(names, given, strict=False)))


def _true_direction(
    store: Path | None, angles: str | None, event: int
) -> NDArray[np.float64] | None:
    """Return the true direction, (3,), or None where neither is given."""
    import numpy as np

    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.tasks.label import origin_direction

    if angles is not None:
        given = options.numbers(angles, "--true-angles")
        if len(given) != 2:
            raise ValueError(f"--true-angles must be AZIMUTH,ZENITH, got {angles!r}")
        azimuth, zenith = np.radians(given)
        direction: NDArray[np.float64] = origin_direction(
            zenith, azimuth, "origin"
        ).numpy()
        if not np.isfinite(direction).all():
            raise ValueError(
                "--true-angles must be an azimuth within 360 deg of 0 and a zenith "
                f"from 0 to 180 deg, got {angles!r}"
            )
        return direction
    if store is None:
        return None
    opened = EventStore(store)
    return EventTruth.of(opened, [opened.find(event)]).direction_B3.reshape(3)
