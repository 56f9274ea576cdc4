"""Commands that evaluate results and test a model under perturbations."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from math import degrees, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import option
from graphnet_icecube2nd.commands.show import counting, print_table

if TYPE_CHECKING:
    from graphnet_icecube2nd.evaluation.metrics import Evaluation
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.tasks.section import Section

ROWS_SHOWN = 10  # quantities that compare-data prints
FIGURES_SHOWN = 4  # for each table in the line of a task


def evaluate(
    results: Annotated[
        list[str],
        typer.Argument(
            help="Results tables (.parquet, .csv, .db), ours or GraphNeT's "
            "predictions. NAME=FILE names a table in the report. The first table is "
            "the reference of all comparisons."
        ),
    ],
    truth: Annotated[
        Path,
        option(
            "Event store, or table with event_id and the truth: azimuth and zenith in "
            "rad, energy in GeV, topology, n_pulses, ..."
        ),
    ],
    out: Annotated[Path, option("Folder of the report.")] = Path("report"),
    truth_table: options.TruthTable = None,
    truth_angles: options.TruthAngles = None,
    result_angles: options.ResultAngles = "origin",
    line_fit: Annotated[
        bool,
        option("Add the line fit; --truth must be an event store.", "--line-fit"),
    ] = False,
    weight: Annotated[
        str | None,
        option(
            "Column with the events' weights, 0 or more, in the truth or in a results "
            "table. Default: all events count alike."
        ),
    ] = None,
    outliers: Annotated[
        float | None,
        option(
            "List false triggers (next to no light) and, for each kappa and width, "
            "this share of the events with the lowest kappa or widest width, such as "
            "0.01."
        ),
    ] = None,
    leave_out_outliers: Annotated[
        bool,
        option(
            "Leave these outliers out of all figures; the default share is 0.01.",
            "--leave-out-outliers",
        ),
    ] = False,
    title: Annotated[str, option("Title of the report.")] = "Results and truth",
    resamples: Annotated[
        int,
        typer.Option(
            help="Bootstrap resamples of the intervals; fewer for very many events.",
            min=20,
        ),
    ] = 1000,
) -> None:
    """Write a report that compares results with the truth.

    The report has a section for each task with columns in the results and labels in
    the truth: opening angles and coverage for directions, bias and resolution for
    energies. It is one HTML page that needs no other file. Figures are also saved as
    PDF and PNG, tables as CSV and JSON. Several results tables are compared on the
    events that all of them have.

    With --weight, medians, quantiles, means, shares and areas under ROC curves are
    weighted, and the effective number of events, (sum w)^2 / sum w^2, stands beside the
    number of events.
    """
    import logging

    import numpy as np

    from graphnet_icecube2nd.evaluation import metrics
    from graphnet_icecube2nd.notices import only_from
    from graphnet_icecube2nd.report.evaluation.report import write_evaluation
    from graphnet_icecube2nd.results.truth import EventTruth

    columns = () if weight is None else (weight,)
    known = EventTruth.load(
        truth, table=truth_table, angles=truth_angles, columns=columns
    )
    tables = [_table(given, result_angles, columns) for given in results]
    if line_fit:
        tables.append(_line_fit(truth, tables, known))
    further: list[Section] = []
    if outliers is not None or leave_out_outliers:
        from graphnet_icecube2nd.evaluation import outliers as room

        share = room.DOUBT if outliers is None else outliers
        quantities = _pulse_quantities(truth, tables, known)
        found = room.find_outliers(tables, known, quantities, share)
        further.append(room.outlier_section(found, leave_out_outliers))
        if leave_out_outliers:
            kept_B = ~np.isin(known.event_id, found.event_id)
            known = known.of_events(known.event_id[kept_B])
        print(found.text + (", left out" if leave_out_outliers else ""))
    with only_from(metrics.LOGGER.name, logging.ERROR):  # remarks are printed below
        evaluation = metrics.evaluate(tables, known, resamples=resamples, weight=weight)
    page = write_evaluation(
        evaluation,
        out,
        title=title,
        context={
            "truth": str(truth),
            **({} if weight is None else {"weights": f"column {weight}"}),
            "tables": ", ".join(results),
            "command": shlex.join(["icecube2nd", *sys.argv[1:]]),
        },
        further=further,
    )
    _show(evaluation)
    print(page)


def _show(evaluation: Evaluation) -> None:
    """Print the table of directions, a line for each other task, and the remarks."""
    rows = [
        (
            row.table,
            f"{row.events:,}"
            + ("" if row.effective is None else f" ({row.effective:,.0f} effective)"),
            f"{row.mean.value:.4f} ({row.mean.low:.4f} to {row.mean.high:.4f})",
            f"{degrees(row.median.value):.2f}",
            *("-" if isnan(x) else f"{x:.1%}" for x in (row.inside_50, row.inside_90)),
        )
        for row in evaluation.summaries
    ]
    if evaluation.tables:
        header = ("", "events", "mean, rad", "median, deg", "in 50%", "in 90%")
        print_table(header, rows)
    for task in evaluation.tasks:
        lines = [_figures(row) for row in task.section.rows]
        print(f"{task.task}: {len(task.event_id):,} events; {'; '.join(lines)}")
    for remark in evaluation.remarks:
        print(remark)


def _figures(row: Mapping[str, Any]) -> str:
    """Return the first figures of a row of a task's table as a text."""
    from graphnet_icecube2nd.report.evaluation.report import heading_of
    from graphnet_icecube2nd.tasks.section import shown_columns

    figures = [
        f"{heading_of(name)} {row[name]:.3g}"
        for name in shown_columns([row])
        if isinstance(row[name], float) and row[name] == row[name]
    ]
    return f"{row.get('table', '')}: {', '.join(figures[:FIGURES_SHOWN])}"


def _table(given: str, angles: str, columns: tuple[str, ...]) -> EventTable:
    from graphnet_icecube2nd.results.event_table import EventTable

    name, path = _name_and_path(given)
    return EventTable.load(path, name, angles, columns)


def _pulse_quantities(
    truth: Path, tables: list[EventTable], known: EventTruth
) -> dict[str, Any] | None:
    """Return quantities of a store's events, or None for another truth.

    They are NaN for events that are in no table, whose pulses are not read.
    """
    import numpy as np

    from graphnet_icecube2nd.evaluation.event_quantities import event_quantities
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.manifest import MANIFEST

    if not (truth / MANIFEST).is_file():
        return None
    seen_B = np.zeros(len(known), bool)
    for table in tables:
        seen_B |= np.isin(known.event_id, table.event_id)
    found = {}
    quantities = event_quantities(EventStore(truth), np.flatnonzero(seen_B))
    for name, value in quantities.items():
        found[name] = np.full(len(known), np.nan)
        found[name][seen_B] = value
    return found


def _name_and_path(given: str) -> tuple[str, str]:
    """Return name and path of NAME=PATH, or of a path alone."""
    name, equals, path = given.partition("=")
    if not equals or Path(given).exists():
        return Path(given).stem, given
    return name, path


def _line_fit(truth: Path, tables: list[EventTable], known: EventTruth) -> EventTable:
    import numpy as np

    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.manifest import MANIFEST

    if not (truth / MANIFEST).is_file():
        file = truth if truth.suffix == ".db" else "events.db"
        raise ValueError(
            f"--line-fit needs pulses: --truth must be an event store, found {truth}. "
            f"Make one of the file with the pulses: icecube2nd prepare {file} "
            f"{Path(file).stem}/"
        )
    wanted = np.ones(len(known), bool)
    for table in tables:
        wanted &= np.isin(known.event_id, table.event_id)
    return line_fit_events(EventStore(truth), np.flatnonzero(wanted))


def compare_data(
    first: Annotated[
        str,
        typer.Argument(
            help="Results table (.parquet, .csv, .db) or event store, such as data. "
            "NAME=PATH names it in the report."
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(help="Results table or event store, such as a simulation."),
    ],
    out: Annotated[Path, option("Folder of the report.")] = Path("comparison"),
    weight: Annotated[
        str | None,
        option(
            "Column with the events' weights, 0 or more; where one of the two lacks "
            "it, its events count alike."
        ),
    ] = None,
    run: Annotated[
        str | None,
        option("Column with the run of an event. Default: run_id, run or RunID."),
    ] = None,
    livetime: Annotated[
        tuple[float, float] | None,
        option(
            "Livetimes of both, s; rates are sums of weights divided by them. Default: "
            "1 s."
        ),
    ] = None,
    classifier: Annotated[
        bool,
        typer.Option(
            "--classifier/--no-classifier",
            help="Train a classifier to tell both apart (scikit-learn).",
        ),
    ] = True,
    seed: Annotated[int, option("Random seed of the classifier's folds.")] = 0,
) -> None:
    """Compare two sets of events, such as data and simulation, by distributions.

    Tables are compared in all columns of numbers that both have, stores in numbers of
    pulses, charges, times and the centre of the charge. The report has distributions
    with their ratio, rates, Kolmogorov-Smirnov tests, the area under the ROC curve of a
    classifier that is trained to tell both apart, and the same tests by run. It is one
    HTML page that needs no other file; tables are also saved as CSV and JSON.
    """
    from graphnet_icecube2nd.evaluation import data_comparison as room
    from graphnet_icecube2nd.plots import new_figure
    from graphnet_icecube2nd.report.evaluation.report import write_report

    new_figure(1, 1)  # a missing matplotlib is an error before any work
    sets = []
    livetimes = livetime or (None, None)
    for given, seconds in zip((first, second), livetimes, strict=True):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"--livetime must be above 0 s, found {seconds:g}")
        name, path = _name_and_path(given)
        reading = {"weight": weight, "run": run}
        sets.append(room.ComparedEvents.load(path, name, livetime=seconds, **reading))
    for option_name, column, is_there in (
        ("--weight", weight, any(one.weight_name for one in sets)),
        ("--run", run, any(one.run_B is not None for one in sets)),
    ):
        if column is not None and not is_there:
            raise ValueError(
                f"{option_name} must be a column of {first} or {second}, found "
                f"{column!r} in neither"
            )
    comparison = room.compare_data(sets[0], sets[1], classifier=classifier, seed=seed)
    page = write_report(
        room.comparison_sections(comparison),
        out,
        "comparison",
        title="Comparison of two sets of events",
        context={
            "first": first,
            "second": second,
            **({} if weight is None else {"weights": f"column {weight}"}),
            "command": shlex.join(["icecube2nd", *sys.argv[1:]]),
        },
    )
    header = ("", "mean, first", "mean, second", "KS distance", "p-value")
    numbers = ("mean_first", "mean_second", "ks_distance", "p_value")
    print_table(
        header,
        [
            (str(row["quantity"]), *(f"{row[name]:.4g}" for name in numbers))
            for row in comparison.rows[:ROWS_SHOWN]
        ],
    )
    if comparison.auc is not None:
        value, low, high = comparison.auc
        print(f"classifier: AUC {value:.4f} ({low:.4f} to {high:.4f}); 0.5 is guessing")
    for note in comparison.notes:
        print(note)
    print(page)


def robustness(
    store: Annotated[Path, typer.Argument(help="Event store with true directions.")],
    out: Annotated[
        Path, option("Folder of the report: CSV, JSON, Markdown, PDF, PNG.")
    ],
    model: options.Model = None,
    ensemble: options.Ensemble = None,
    events: Annotated[
        int | None,
        option("Number of events, drawn at random. Default: all events."),
    ] = None,
    max_pulses: options.MaxPulses = None,
    seed: Annotated[
        int | None,
        option("Random seed of events, pulses and perturbations."),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Measure how the mean opening angle changes when the events are perturbed.

    The perturbations are: jittered and shifted times, scaled charges, added noise, DOMs
    and strings switched off, mirrored axes, a cut at the start of the window, and
    another selection of pulses. All of them use the same events; differences have
    paired intervals. The run takes about 36 times as long as `reconstruct`.
    """
    from graphnet_icecube2nd.evaluation.robustness import (
        choose_events,
        default_perturbations,
        num_passes,
    )
    from graphnet_icecube2nd.evaluation.robustness import measure_robustness as measure
    from graphnet_icecube2nd.files import only_writer
    from graphnet_icecube2nd.inference.model_bundle import load_bundle
    from graphnet_icecube2nd.plots import new_figure
    from graphnet_icecube2nd.report.robustness import context_of, save_robustness
    from graphnet_icecube2nd.store.event_store import EventStore

    name = options.model_name(model, ensemble)
    new_figure(1, 1)  # a missing matplotlib is an error before any work
    with only_writer(out):  # a second one is refused before its work
        # The table shows the network's own kappa.
        bundle = load_bundle(name, calibration="none")
        reading = options.changed(bundle.options, max_pulses=max_pulses, seed=seed)
        opened = EventStore(store)
        numbers = choose_events(opened, events, reading.seed)
        asked = default_perturbations(opened, numbers, reading)
        total = num_passes(asked, reading) * len(numbers)
        with counting(total, "perturbing") as on_progress:
            rows = measure(
                bundle.model.to(options.chosen_device(device)),
                opened,
                numbers,
                perturbations=asked,
                options=reading,
                on_progress=on_progress,
            )
        context = context_of(name, opened, rows, reading)
        for path in save_robustness(out, rows, context):
            print(path)
    worst = max(rows, key=lambda row: row.difference)
    print(
        f"baseline {rows[0].mean:.4f} rad; worst: {worst.group}, {worst.strength}: "
        f"{worst.difference:+.4f} rad"
    )
    for row in rows:
        if row.no_pulses:
            print(
                f"  {row.group}, {row.strength}: {row.no_pulses:,} events without "
                "pulses"
            )
