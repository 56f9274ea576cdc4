"""Commands that list detectors, tasks and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from graphnet_icecube2nd.commands.show import print_table

Pattern = Annotated[
    str, typer.Argument(help="Pattern of names, with * and ? as in a shell.")
]


def detectors(pattern: Pattern = "*") -> None:
    """List the detectors: modules, medium, site, clock, scales and sources.

    If one name matches, its columns and the bearing of its x axis are listed too. An
    asterisk marks sites of which no source gives the bearing: x is assumed to point
    east.
    """
    from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
    from graphnet_icecube2nd.detector.site import ASSUMED

    rows = []
    for name in list_detectors(pattern):
        detector = build_detector(name)
        modules, site, depth = detector.modules, detector.site, detector.depth
        where = site and f"{site.latitude:.2f}, {site.longitude:.2f}"
        rows.append(
            (
                name,
                "" if modules is None else f"{len(modules):,}",
                str(detector.pmts),
                "sea water" if detector.medium == "water" else detector.medium,
                f"{where or ''}{' *' * (site in ASSUMED)}",
                "" if depth is None else f"{depth:.0f} m",
                detector.clock.replace("_", " "),
                f"{detector.scales.position:g} m, {detector.scales.time:g} ns",
                detector.source,
            )
        )
    header = "detector", "modules", "PMTs", "medium", "latitude, longitude", "depth"
    _print((*header, "clock", "scales", "source of the positions"), rows)
    if len(rows) == 1:
        print(f"columns: {', '.join(detector.pulses.columns())}")
        if site is not None:
            print(f"bearing of the x axis, from north to east: {site.x_axis}")


def tasks(pattern: Pattern = "*") -> None:
    """List the tasks, the labels that they need and the columns that they write."""
    from graphnet_icecube2nd.tasks.catalogue import build_task, list_tasks

    rows = []
    for name in list_tasks(pattern):
        task = build_task(name)
        for number, column in enumerate(task.columns):
            rows.append(
                (
                    name if number == 0 else "",
                    ", ".join(task.truth) if number == 0 else "",
                    column.name,
                    column.unit,
                    column.description,
                )
            )
    _print(("task", "label", "column", "unit", "description"), rows)


def models(pattern: Pattern = "*") -> None:
    """List the models, their numbers of parameters and the packaged weights."""
    import torch

    from graphnet_icecube2nd.models.pretrained import list_pretrained
    from graphnet_icecube2nd.models.registry import MODELS, list_models, new_model

    rows = []
    for name in list_models(pattern):
        with torch.device("meta"):
            model = new_model(name)
        count = sum(parameter.numel() for parameter in model.parameters())
        packaged = [w.split(".", 1) for w in list_pretrained()]
        tags = [tag for model_name, tag in packaged if model_name == name]
        about = (MODELS.get(name).__doc__ or "").strip().splitlines()
        rows.append(
            (name, f"{count / 1e6:.2f} M", ", ".join(tags), about[0] if about else "")
        )
    _print(("model", "parameters", "weights", "description"), rows)


def _print(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Column

    if not rows:
        print("no name matches")
        return
    first, *others = header
    columns = [Column(first, no_wrap=True, overflow="fold")]
    columns += [Column(name, overflow="fold") for name in others]
    print_table(columns, rows, Console(markup=False), box=None)
