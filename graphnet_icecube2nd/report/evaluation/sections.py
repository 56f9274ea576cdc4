"""What the report of an evaluation says, section by section."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.report.evaluation.page import PageSection
from graphnet_icecube2nd.report.evaluation.tables import (
    Row,
    figure_names,
    heading_of,
    table_name,
)

SUMMARY = {
    "table": "",
    "events": "events",
    "failed": "without direction",
    "mean_rad": "mean, rad",
    "difference_rad": "mean minus first table's, rad",
    "median_deg": "median, deg",
    "q68_deg": "68%, deg",
    "q90_deg": "90%, deg",
    "median_pull": "median pull",
    "inside_50": "in 50% contour",
    "inside_90": "in 90% contour",
}
BINS = {
    "bin": "",
    "table": "table",
    "events": "events",
    "mean_rad": "mean, rad",
    "median_deg": "median, deg",
    "q68_deg": "68%, deg",
    "inside_50": "in 50% contour",
    "inside_90": "in 90% contour",
}
ENERGY_BY_TOPOLOGY = "by_energy_and_topology"
EXPECTED = {
    "table": "",
    "way": "kappa",
    "events": "events",
    "kappa": "median kappa",
    "expected_deg": "expected, deg",
    "observed_deg": "observed, deg",
}
INTERVALS = "Small numbers are the ends of 95% bootstrap intervals."


def sections_of(
    evaluation: Evaluation, tables: Mapping[str, list[Row]]
) -> list[PageSection]:
    """Return the sections of the report: those of directions, one of each other task.

    Args:
        evaluation: The tables beside the truth.
        tables: Its tables, as `evaluation_tables` gives them.
    """
    sections = direction_sections(evaluation, tables) if evaluation.tables else []
    for evaluated in evaluation.tasks:
        section = evaluated.section
        rows = tables.get(table_name(section.task), [])
        figures = figure_names(section)
        sections.append(
            PageSection(
                name=section.title,
                text=section.text,
                figures={
                    figures[name]: section.captions.get(name, "")
                    for name in section.figures
                },
                table=rows,
                columns={
                    column: "" if column == "table" else heading_of(column)
                    for column in (rows[0] if rows else {})
                },
            )
        )
    return sections


def direction_sections(
    evaluation: Evaluation, tables: Mapping[str, list[Row]]
) -> list[PageSection]:
    """Return the sections of directions.

    Args:
        evaluation: The tables beside the truth.
        tables: Its tables, as `evaluation_tables` gives them.
    """
    several = len(evaluation.tables) > 1
    sections = [
        PageSection(
            name="Direction",
            text="The mean opening angle in rad is the competition's score. An event "
            "without a predicted direction counts as pi/2, what guessing gives. "
            + (
                "Differences are paired: all tables are judged by the same events. "
                if several
                else ""
            )
            + "The median pull, opening angle times the root of kappa, is 1.18 if "
            f"kappa is calibrated and large. {INTERVALS}",
            figures={
                "distribution": "Share of the events whose opening angle is smaller. "
                "Marks are medians; grey is what a random direction gives."
            },
            table=tables["summary"],
            columns={
                k: v for k, v in SUMMARY.items() if several or k != "difference_rad"
            },
        )
    ]
    by = {
        "by_topology": (
            "Direction by topology",
            "Mean opening angle by topology.",
        ),
        "by_energy": (
            "Direction by energy",
            "Opening angle against the energy of the neutrino, in half decades.",
        ),
        ENERGY_BY_TOPOLOGY: (
            "Direction by energy and topology",
            "Mean opening angle against energy, for each topology. Over all events it "
            "can rise with energy only because topologies with worse resolution are "
            "more frequent at high energy.",
        ),
        "by_cos_zenith": (
            "Direction by zenith",
            "Opening angle against the cosine of the true zenith: 1 is from above, "
            "-1 is through the Earth.",
        ),
        "by_pulses": (
            "Direction by number of pulses",
            "Opening angle against the number of pulses of the event, before any "
            "selection of pulses.",
        ),
    }
    for name, (heading, caption) in by.items():
        if name in tables:
            sections.append(
                PageSection(
                    name=heading,
                    text="",
                    figures={
                        name: f"{caption} Bars are 95% intervals; bins of fewer than "
                        "20 events are left out."
                    },
                    table=tables[name],
                    columns={"topology": "topology", **BINS}
                    if name == ENERGY_BY_TOPOLOGY
                    else BINS,
                )
            )
    if "coverage" in tables:
        sections.append(_calibration(tables))
    return sections


def _calibration(tables: Mapping[str, list[Row]]) -> PageSection:
    return PageSection(
        name="Calibration of kappa",
        text="Kappa is calibrated if each contour contains the share of true "
        "directions that it is made for. Recalibrated figures are of events that the "
        "calibration was not fitted on: each half of the events is calibrated by the "
        "other. A table that comes with calibrated contours is judged by these "
        "contours. Temperature is one factor on kappa, isotonic a rising function of "
        "kappa; both also correct the levels of the contours, because real errors have "
        "longer tails than a von Mises-Fisher distribution. The command icecube2nd "
        "calibrate stores a calibration with a model.",
        figures={
            "coverage": "Share of true directions in contours of 10% to 99%, minus "
            "that nominal share. Left: kappa as given. Right: recalibrated (dotted: "
            "temperature, full: isotonic). Below 0 the contours are too small. Shaded: "
            "95% intervals.",
            "expected": "Twelve bins of kappa: median opening angle against the median "
            "that kappa predicts. Above the line the errors are larger than predicted. "
            "Open marks: isotonic recalibration.",
            "pulls": "Distribution of opening angle times the root of kappa, as given; "
            "dotted: what the same kappas give if they are calibrated.",
        },
        table=tables["expected"],
        columns=EXPECTED,
    )
