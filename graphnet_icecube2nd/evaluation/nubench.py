"""NuBench's five metrics, by its definitions and names, of an evaluation.

Source: NuBench, arXiv:2511.13111, and its published tables and plotting code. Its
events are muon neutrinos; CC and NC are charged and neutral currents of these. Energies
are true ones. Where NuBench has no definition this package's is used: an event without
a direction counts as 90 degrees, and weights are used if there are any.

- Energy: bias, the median of (E_true - E_reco) / E_true, and sigma, the width from its
  16th to its 84th percentile, in percent. A bias above 0 means that the predicted
  energy is too small, the opposite of this package's sign.
- Direction: median opening angle psi, and shares of events within 1 and 5 degrees.
- Track/cascade: area under the ROC curve; tracks are CC.
- Vertex: medians of the distance D_xyz, of |D_z| and of D_xy.
- Inelasticity: median and width (16th to 84th percentile) of |y_reco - y_true|, CC
  only. NuBench's y is the visible inelasticity, whatever the predictions are called.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.metrics import Evaluation, TaskEvaluation
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.statistics import mean, quantile, roc_area, roc_curve
from graphnet_icecube2nd.tasks.bins import weights_of
from graphnet_icecube2nd.tasks.inelasticity import expit
from graphnet_icecube2nd.tasks.label import (
    INTERACTION_COLUMNS,
    MUON_NEUTRINO,
    VISIBLE_INELASTICITY,
)
from graphnet_icecube2nd.tasks.section import Columns, Section, event_counts

CHARGED, NEUTRAL = 1, 2  # interaction
# Borders of the bins, GeV; upper borders belong to the bins.
THIRDS = ((0.0, 1e2), (1e2, 1e3), (1e3, 1e5))
HALVES = ((0.0, 1e3), (1e3, 1e5))
ANY = ((0.0, np.inf),)

Array = NDArray[np.float64]
Chosen = NDArray[np.bool_]
Figures = Callable[[str, Chosen], Row]


def interactions(truth: EventTruth) -> tuple[Chosen, Chosen] | None:
    """Return which events are CC and NC of muon neutrinos, (B,); None if unknown."""
    for names in INTERACTION_COLUMNS:
        if set(names) <= set(truth.columns):
            pdg_B, kind_B = (np.asarray(truth.columns[n], np.float64) for n in names)
            is_muon_B = np.abs(pdg_B) == MUON_NEUTRINO
            return is_muon_B & (kind_B == CHARGED), is_muon_B & (kind_B == NEUTRAL)
    return None


def nubench_section(evaluation: Evaluation) -> Section | None:
    """Return the section of NuBench's metrics, one table for each task.

    Returns None if the truth has no energies or does not tell CC from NC.
    """
    sections = []
    if evaluation.tables and _is_enough(evaluation.truth):
        sections.append(_direction(evaluation))
    makers = {
        "energy": _energy,
        "track": _track,
        "vertex": _vertex,
        "inelasticity": _inelasticity,
        VISIBLE_INELASTICITY: _inelasticity,
    }
    for task in evaluation.tasks:
        if task.task in makers and _is_enough(task.truth):
            sections.append(makers[task.task](task))
    sections = [section for section in sections if section.rows]
    if not sections:
        return None
    return Section(
        task="nubench",
        title="NuBench's metrics",
        text="Metrics of the benchmark NuBench (arXiv:2511.13111) by its definitions. "
        "Energies are true ones, in GeV; CC and NC are interactions of muon neutrinos. "
        "NuBench publishes no metric of uncertainties.",
        further=tuple(sections),
    )


def _is_enough(truth: EventTruth) -> bool:
    return bool(np.isfinite(truth.energy_B).any()) and interactions(truth) is not None


def _section(task: str, title: str, text: str, rows: Sequence[Row]) -> Section:
    table = f"nubench_{task}"
    return Section(task="nubench", table=table, title=title, text=text, rows=rows)


def _task_section(
    task: TaskEvaluation,
    title: str,
    text: str,
    figures: Callable[[Columns, Chosen, Array], Row],
    ranges: Sequence[tuple[float, float]],
    groups: Mapping[str, Chosen] | None = None,
) -> Section:
    """Return the section of a task; `figures` takes a table, events, their weights."""
    weight_B = weights_of(task.known, len(task.target))

    def row(name: str, chosen_B: Chosen) -> Row:
        return figures(task.tables[name], chosen_B, weight_B[chosen_B])

    energy_B = task.truth.energy_B
    rows = _rows(list(task.tables), row, energy_B, weight_B, ranges, groups)
    return _section(task.task, f"NuBench: {title}", text, rows)


def _rows(
    tables: Sequence[str],
    figures: Figures,
    energy_B: Array,
    weight_B: Array,
    ranges: Sequence[tuple[float, float]],
    groups: Mapping[str, Chosen] | None = None,
) -> list[Row]:
    """Return a row for each range, group of events and table."""
    rows: list[Row] = []
    for low, high in ranges:
        in_range_B = (energy_B > low) & (energy_B <= high)
        name = f"{low:,.0f} to {high:,.0f}" if low else f"up to {high:,.0f}"
        here: Row = {"energy_range": "all" if (low, high) == ANY[0] else name}
        for group, is_in_B in (groups or {"": np.ones(len(energy_B), bool)}).items():
            chosen_B = in_range_B & is_in_B
            if not weight_B[chosen_B].any():
                continue
            kind = {"interaction": group} if groups else {}
            rows += [
                here
                | kind
                | event_counts(table, weight_B[chosen_B])
                | figures(table, chosen_B)
                for table in tables
            ]
    return rows


def _direction(evaluation: Evaluation) -> Section:
    truth = evaluation.truth
    kinds = interactions(truth)
    assert kinds is not None
    evaluated = {one.table.name: one for one in evaluation.tables}
    weight_B = evaluation.tables[0].weight_B

    def figures(name: str, chosen_B: Chosen) -> Row:
        psi = np.degrees(evaluated[name].angle_B[chosen_B])
        weight = weight_B[chosen_B]
        return {
            "median_psi_deg": float(quantile(psi, [0.5], weight)[0]),
            "inside_1_deg": mean(psi <= 1, weight),
            "inside_5_deg": mean(psi <= 5, weight),
        }

    groups = dict(zip(("CC", "NC"), kinds, strict=True))
    energy_B = truth.energy_B
    return _section(
        "direction",
        "NuBench: direction",
        "Median opening angle psi, and shares of events with psi up to 1 and 5 deg.",
        _rows(list(evaluated), figures, energy_B, weight_B, HALVES, groups),
    )


def _energy(task: TaskEvaluation) -> Section:
    true_B: Array = 10.0**task.target

    def figures(table: Columns, chosen_B: Chosen, weight: Array) -> Row:
        off: Array = 100 * ((true_B - table["energy"]) / true_B)[chosen_B]
        low, median, high = quantile(off, [0.16, 0.5, 0.84], weight)
        return {"bias_percent": float(median), "sigma_percent": float(high - low)}

    return _task_section(
        task,
        "energy",
        "Bias is the median of (true - predicted) / true energy, the opposite sign of "
        "the bias above, and sigma the distance of its 16th and 84th percentiles.",
        figures,
        THIRDS,
    )


def _track(task: TaskEvaluation) -> Section:
    is_track_B = task.target > 0.5

    def figures(table: Columns, chosen_B: Chosen, weight: Array) -> Row:
        is_yes = is_track_B[chosen_B]
        rates = roc_curve(table["p_track"][chosen_B], is_yes, weight)
        both = weight[is_yes].any() and weight[~is_yes].any()
        return {"auc": roc_area(*rates) if both else float("nan")}

    return _task_section(
        task,
        "track or cascade",
        "Area under the ROC curve.",
        figures,
        (*ANY, *THIRDS),
    )


def _vertex(task: TaskEvaluation) -> Section:
    def figures(table: Columns, chosen_B: Chosen, weight: Array) -> Row:
        predicted_B3 = np.stack([table[f"vertex_{axis}"] for axis in "xyz"], axis=1)
        error = np.abs(predicted_B3 - task.target[:, :3])[chosen_B]
        sizes = {
            "median_d_xyz_m": np.linalg.norm(error, axis=1),
            "median_d_z_m": error[:, 2],
            "median_d_xy_m": np.linalg.norm(error[:, :2], axis=1),
        }
        return {n: float(quantile(v, [0.5], weight)[0]) for n, v in sizes.items()}

    return _task_section(
        task,
        "vertex",
        "Medians of the distance between true and predicted vertex, of its vertical "
        "(z) and of its horizontal (xy) part.",
        figures,
        HALVES,
    )


def _inelasticity(task: TaskEvaluation) -> Section:
    kinds = interactions(task.truth)
    assert kinds is not None
    true_B, what = expit(task.target), "the inelasticity"
    if VISIBLE_INELASTICITY in task.truth.columns:
        true_B = np.asarray(task.truth.columns[VISIBLE_INELASTICITY], np.float64)
        what = "the visible inelasticity"
    known_B = kinds[0] & (true_B >= 0) & (true_B <= 1)

    def figures(table: Columns, chosen_B: Chosen, weight: Array) -> Row:
        off = np.abs(table[task.task] - true_B)[chosen_B]
        low, median, high = quantile(off, [0.16, 0.5, 0.84], weight)
        return {"median_residual": float(median), "sigma": float(high - low)}

    return _task_section(
        task,
        task.task.replace("_", " "),
        f"Median of |predicted - true| and the distance of its 16th and 84th "
        f"percentiles, for charged currents; the truth is {what}.",
        figures,
        THIRDS,
        {"CC": known_B},
    )
