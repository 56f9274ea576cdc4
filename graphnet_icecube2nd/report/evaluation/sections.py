"""What the report of an evaluation says, part by part."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.report.evaluation.page import Section
from graphnet_icecube2nd.report.evaluation.tables import Row

SUMMARY = {
    "table": "",
    "events": "events",
    "failed": "without direction",
    "mean_rad": "mean, rad",
    "difference_rad": "mean less the first's, rad",
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
) -> list[Section]:
    """Return the parts of the report.

    Args:
        evaluation: The tables beside the truth.
        tables: Its tables, as `evaluation_tables` gives them.
    """
    several = len(evaluation.tables) > 1
    sections = [
        Section(
            name="Summary",
            text="The mean opening angle in rad is the competition's score. An event "
            "without a direction counts as pi/2, what guessing gives. "
            + (
                "Differences are paired: all tables are judged by the same events. "
                if several
                else ""
            )
            + "The median pull, opening angle times the root of kappa, is 1.18 if "
            f"kappa is honest and large. {INTERVALS}",
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
        "by_topology": ("Topology", "Mean opening angle by the kind of event."),
        "by_energy": (
            "Energy",
            "Opening angle against the energy of the neutrino, half a decade a bin.",
        ),
        ENERGY_BY_TOPOLOGY: (
            "Energy, each topology apart",
            "Mean opening angle against energy. On the whole it can rise with energy "
            "only because kinds of event that are hard to point with are more "
            "frequent there; here each kind is by itself.",
        ),
        "by_cos_zenith": (
            "Zenith",
            "Opening angle against the cosine of the true zenith: 1 comes from above, "
            "-1 through the Earth.",
        ),
        "by_pulses": (
            "Pulses",
            "Opening angle against the number of pulses, before any are left out.",
        ),
    }
    for name, (heading, caption) in by.items():
        if name in tables:
            sections.append(
                Section(
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


def _calibration(tables: Mapping[str, list[Row]]) -> Section:
    return Section(
        name="Calibration",
        text="A kappa is honest if contours that are to hold a share of the true "
        "directions hold that share. Recalibrated figures are of events that the "
        "calibration was not fitted on: each half of the events is calibrated by the "
        "other; a table that comes with contours of a calibration is judged by those "
        "that it has. Temperature is one factor on kappa, isotonic a rising map; "
        "both correct the levels of contours as well, for real errors have longer "
        "tails than a von Mises-Fisher distribution. To store a calibration with a "
        "model: icecube2nd calibrate.",
        figures={
            "coverage": "What contours of 10% to 99% hold, less what they are to hold. "
            "Left as kappa is given; right recalibrated (dotted: temperature, full: "
            "isotonic). Below 0 contours are too small. Shaded: 95% intervals.",
            "expected": "In twelve bins of kappa: the median opening angle that kappa "
            "promises against the one there is. Above the line events are farther off "
            "than they say. Open: isotonic.",
            "pulls": "Opening angle times the root of kappa, as given; dotted is what "
            "these very kappas give if they are honest.",
        },
        table=tables["expected"],
        columns=EXPECTED,
    )
