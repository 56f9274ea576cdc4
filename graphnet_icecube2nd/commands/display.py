"""The command that draws an event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    store: Annotated[Path, typer.Argument(help="The store.")],
    event: Annotated[int, typer.Argument(help="The event_id.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A picture: .png, .pdf, .svg; or a page to turn and play in a "
            "browser: .html. Default: event_<id>.png."
        ),
    ] = None,
    directions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Table of directions (parquet, CSV or SQLite with event_id, "
            "direction_x, _y, _z) to be drawn as well; more than once for several. A "
            "page shows the cone of radius_50, or of kappa, where the table has one."
        ),
    ] = None,
    result_angles: Annotated[
        str, typer.Option(help="origin or flight: what the tables' directions mean.")
    ] = "origin",
    line_fit: Annotated[
        bool, typer.Option("--line-fit", help="Draw what the line fit finds.")
    ] = False,
    auxiliary: Annotated[
        bool, typer.Option("--auxiliary", help="Draw pulses that are not HLC, too.")
    ] = False,
) -> None:
    """Draw an event: strings, pulses, the true direction and others."""
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.store.event_store import EventStore

    opened = EventStore(store)
    number = opened.find(event)
    tables = [line_fit_events(opened, [number])] if line_fit else []
    for path in directions or []:
        table = EventTable.load(path, path.stem, result_angles)
        if event not in table.event_id:
            raise ValueError(f"{path} has no event {event}")
        if not table.has_direction:
            raise ValueError(f"{path} has no directions to draw")
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
