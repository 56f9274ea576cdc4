"""All answers of a model on fresh simulated events, against the goals for them.

    python benchmarks/bench_answers.py --model t_sim.simulated --out benchmarks/results
    python benchmarks/bench_answers.py --limit 300    # and the likelihood's answers

Directions, energies, vertices and classes of events that nothing was trained on, with
95% intervals: biases and coverages in bins of the predicted value, pulls in bins of
what an analyser sees. With --limit, the maximum of the simulation's own likelihood and
the likelihood ratio of two topologies stand beside the network's answers for the first
events.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import context
import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd import EventStore, reconstruct, simulate
from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.likelihood.limit import limit_events
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.simulation.configuration import TOPOLOGIES
from graphnet_icecube2nd.statistics import (
    auc_error,
    quantile_intervals,
    roc_area,
    roc_curve,
)
from graphnet_icecube2nd.tasks.label import TRACK_TOPOLOGIES
from graphnet_icecube2nd.tasks.losses import SHARE

Array = NDArray[np.float64]
SEED = 20230420  # of no training or calibration
FEWEST = 20  # events of a bin that is shown
ENERGIES = ("energy", "visible_energy")
VERTEX_TOPOLOGIES = ("starting_track", "cascade", "double_cascade")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="t_sim.simulated")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--store", type=Path, help="simulated events; default: new")
    parser.add_argument(
        "--limit", type=int, default=0, help="events for the likelihood"
    )
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--name", default="answers", help="name of the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.limit = 300, 2
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or Path(folder) / "store"
        if not (path / "manifest.json").exists():
            simulate(path, num_events=arguments.events, seed=SEED)
        store = EventStore(path)
        found = reconstruct(store, arguments.model, Path(folder) / "answers.parquet")
        table = found.table()
        rows = np.arange(len(store))
        result = measure(store, rows, dict(table.columns))
        result["decades"] = by_decade(store, rows, dict(table.columns))
        if arguments.limit:
            result["limit"] = beside_the_limit(
                store, rows[: arguments.limit], dict(table.columns)
            )
    result["context"] = context.describe(
        model=arguments.model,
        events=len(store),
        simulated=store.manifest.notes[-1],
        events_per_s=round(found.num_events / found.seconds),
    )
    text = markdown(result)
    context.write(arguments.out, arguments.name, text, result)


def truth_of(store: EventStore, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the columns of the truth of some events."""
    return {name: store.whole_event_column(name)[rows] for name in store.event_columns}


def vectors(columns: dict[str, NDArray[Any]], prefix: str) -> Array:
    """Return the vectors of columns with a prefix, (B, 3); NaN if they are missing."""
    unknown = np.full(len(next(iter(columns.values()))), np.nan)
    axes = (columns.get(f"{prefix}_{axis}", unknown) for axis in "xyz")
    return np.stack([*axes], axis=1)


def angles_of(
    store: EventStore, rows: NDArray[np.int64], columns: dict[str, NDArray[Any]]
) -> Array:
    """Return the opening angles of answers for some events, (B,) rad."""
    truth = EventTruth.of(store, rows).direction_B3
    return opening_angle(vectors(columns, "direction"), truth).numpy()


def measure(
    store: EventStore, rows: NDArray[np.int64], found: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the figures of all answers."""
    truth = truth_of(store, rows)
    topology = truth["topology"].astype(str)
    result: dict[str, Any] = {"figures": [], "bins": []}
    figures, bins = result["figures"], result["bins"]

    def add(what: str, group: str, value: Array, goal: str = "") -> None:
        """Add a mean with its interval."""
        if len(value) >= FEWEST:
            mean, error = float(value.mean()), float(value.std() / len(value) ** 0.5)
            figures.append(
                {
                    "what": what,
                    "of": group,
                    "events": len(value),
                    "value": mean,
                    "interval": [mean - 1.96 * error, mean + 1.96 * error],
                    "goal": goal,
                }
            )

    groups = [("all", np.ones(len(rows), bool))]
    groups += [(name.replace("_", " "), topology == name) for name in TOPOLOGIES]
    angle = angles_of(store, rows, found)
    for name, chosen in groups:
        goal = "0.436 at most on version 1" if name == "all" else ""
        add("opening angle, mean [rad]", name, angle[chosen], goal)
    for level in (50, 90):
        radius = found.get(f"radius_{level}")
        if radius is not None:
            for name, chosen in groups:
                inside = (angle <= radius)[chosen].astype(float)
                add(f"within the {level}% contour", name, inside, f"0.{level}")
    for energy in ENERGIES:
        if energy not in found:
            continue
        known = (truth[energy] > 0) & np.isfinite(found[energy])
        residual = np.log10(found[energy]) - np.log10(np.maximum(truth[energy], 1e-9))
        width = found[f"{energy}_log10_sigma"]
        title = energy.replace("_", " ")
        for name, chosen in groups:
            here = chosen & known
            inside = (np.abs(residual) <= width)[here].astype(float)
            add(f"{title} within its 68%", name, inside, "0.66 to 0.70")
        for low in np.arange(2.0, 7.0, 0.5):
            for label, values in (("predicted", found), ("true", truth)):
                x = np.log10(np.maximum(values["visible_energy"], 1e-9))
                here = known & (x >= low) & (x < low + 0.5)
                if here.sum() >= FEWEST:
                    bins.append(
                        _bias(title, f"{label} visible energy", low, residual[here])
                    )
        pull = residual / width
        for group, chosen in _seen(found, truth, known):
            bins.append(_pull(title, group, pull[chosen & known]))
    if "vertex_x" in found:
        off = vectors(found, "vertex") - vectors(truth, "position")
        known = np.isin(topology, VERTEX_TOPOLOGIES)
        away = np.linalg.norm(off, axis=1)
        time = found["vertex_time"] - truth["vertex_time"]
        pull = off / found["vertex_sigma"][:, None]
        for name, chosen in groups[2:5]:
            here = chosen & known
            add("vertex, distance [m]", name, away[here])
            inside = (np.abs(pull[here]) <= 1).mean(axis=1)
            add("vertex within its 68%", name, inside, "0.66 to 0.70")
            inside = (np.abs(time / found["vertex_time_sigma"])[here] <= 1).astype(
                float
            )
            add("vertex time within its 68%", name, inside, "0.66 to 0.70")
        for group, chosen in _seen(found, truth, known):
            bins.append(_pull("vertex", group, pull[chosen & known].ravel()))
    if "inelasticity" in found:
        known = (truth["interaction_type"] == 1) & np.isfinite(truth["inelasticity"])
        residual = found["inelasticity"] - truth["inelasticity"]
        inside = np.abs(residual) <= found["inelasticity_sigma"]
        for name, chosen in groups[1:5]:
            here = chosen & known
            add("inelasticity, |residual|", name, np.abs(residual[here]))
            add("inelasticity within its 68%", name, inside[here].astype(float))
    is_track = np.isin(topology, TRACK_TOPOLOGIES)
    is_neutrino = topology != "muon_bundle"
    for column, yes in (("p_track", is_track), ("p_neutrino", is_neutrino)):
        if column in found:
            figures.append(_auc(column, "all", found[column], yes))
    if "topology" in found:
        right = (found["topology"].astype(str) == topology).astype(float)
        for name, chosen in groups:
            add("topology is right", name, right[chosen])
    return result


def by_decade(
    store: EventStore, rows: NDArray[np.int64], found: dict[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """Return the errors of all answers by topology and decade of the true energy."""
    truth = truth_of(store, rows)
    topology = truth["topology"].astype(str)
    angle = angles_of(store, rows, found)
    off = vectors(found, "vertex") - vectors(truth, "position")
    away = np.linalg.norm(off, axis=1)
    lines: list[dict[str, Any]] = []
    for name in ("all", *TOPOLOGIES):
        for low in range(2, 7):
            here = (truth["energy"] >= 10**low) & (truth["energy"] < 10 ** (low + 1))
            if name != "all":
                here &= topology == name
            if here.sum() < FEWEST:
                continue
            line: dict[str, Any] = {
                "of": name.replace("_", " "),
                "GeV": f"1e{low}-1e{low + 1}",
                "events": int(here.sum()),
                "mean opening angle [rad]": float(angle[here].mean()),
                "median [deg]": float(np.degrees(np.median(angle[here]))),
            }
            for energy in ENERGIES:
                if energy in found:
                    known = here & (truth[energy] > 0)
                    ratio = np.log10(found[energy][known] / truth[energy][known])
                    line[f"{energy}, 68% of errors, log10"] = float(
                        np.quantile(np.abs(ratio), SHARE)
                    )
            if "vertex_x" in found and name in VERTEX_TOPOLOGIES:
                line["vertex, median [m]"] = float(np.median(away[here]))
            if "topology" in found:
                right = found["topology"].astype(str) == topology
                line["topology is right"] = float(right[here].mean())
            lines.append(line)
    return lines


def _seen(
    found: dict[str, NDArray[Any]], truth: dict[str, NDArray[Any]], known: NDArray[Any]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield bins of what an analyser sees."""
    yield "all", np.ones(len(known), bool)
    cosine, pulses = np.cos(found["zenith"]), truth["n_pulses"]
    seen = {"cos zenith": cosine, "pulses": pulses.astype(float)}
    if "visible_energy" in found:
        seen["visible energy"] = found["visible_energy"]
    for name, values in seen.items():
        borders = np.quantile(values[known], np.linspace(0, 1, 7))
        if name == "cos zenith":
            borders = np.linspace(-1, 1, 7)
        for low, high in pairwise(borders):
            yield f"{name} {low:.3g} to {high:.3g}", (values >= low) & (values <= high)


def _quantile(
    what: str, group: str, values: Array, share: float, goal: str
) -> dict[str, Any]:
    """Return a quantile with its interval."""
    return {
        "what": what,
        "of": group,
        "events": len(values),
        "value": float(np.quantile(values, share)),
        "interval": quantile_intervals(values, [share])[0].tolist(),
        "goal": goal,
    }


def _bias(what: str, group: str, low: float, residual: Array) -> dict[str, Any]:
    """Return the median bias in per cent; residuals are in log10."""
    place = f"{group} 10^{low:g} to 10^{low + 0.5:g} GeV"
    percent = 100 * (10**residual - 1)
    return _quantile(f"{what}, bias [%]", place, percent, 0.5, "-5 to 5")


def _pull(what: str, group: str, pull: Array) -> dict[str, Any]:
    """Return the absolute pull that 68% do not exceed."""
    goal = "0.97 to 1.03" if group == "all" else "0.9 to 1.1"
    return _quantile(f"{what}, pull of 68%", group, np.abs(pull), SHARE, goal)


def _auc(what: str, group: str, score: Array, yes: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the area under the ROC curve with its interval."""
    good = np.isfinite(score)
    area = roc_area(*roc_curve(score[good], yes[good]))
    error = auc_error(score[good], yes[good])
    return {
        "what": f"{what}, AUC",
        "of": group,
        "events": int(good.sum()),
        "value": area,
        "interval": [area - 1.96 * error, area + 1.96 * error],
        "goal": "",
    }


def beside_the_limit(
    store: EventStore, rows: NDArray[np.int64], found: dict[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """Return figures of the likelihood's maximum beside those of the network."""
    truth = truth_of(store, rows)
    topology = truth["topology"].astype(str)
    best = limit_events(store, rows)
    ours = {name: values[rows] for name, values in found.items()}
    lines: list[dict[str, Any]] = []

    def add(what: str, name: str, network: Array, limit: Array) -> None:
        good = np.isfinite(network) & np.isfinite(limit)
        if good.sum() >= FEWEST:
            lines.append(
                {
                    "what": what,
                    "of": name.replace("_", " "),
                    "events": int(good.sum()),
                    "network": float(np.median(network[good])),
                    "limit": float(np.median(limit[good])),
                }
            )

    unknown = np.full(len(rows), np.nan)  # a model may not have every task
    angles, away, energies = [], [], []
    for columns in (ours, best.table.columns):
        angles.append(np.degrees(angles_of(store, rows, columns)))
        off = vectors(columns, "vertex") - vectors(truth, "position")
        away.append(np.linalg.norm(off, axis=1))
        visible = columns.get("visible_energy", unknown)
        ratio = visible / np.maximum(truth["visible_energy"], 1e-9)
        energies.append(np.abs(np.log10(ratio)))
    for name in TOPOLOGIES:
        here = topology == name
        add("opening angle, median [deg]", name, *(a[here] for a in angles))
        add("vertex, median distance [m]", name, *(a[here] for a in away))
        add("visible energy, median error, log10", name, *(a[here] for a in energies))
    # The likelihood ratio of two hypotheses, found without the truth.
    hypotheses = {
        name: limit_events(
            store, rows, topology=name, from_truth=False, effort="quick"
        ).log_likelihood_B
        for name in ("cascade", "starting_track", "through_going_track", "muon_bundle")
    }
    track = np.maximum(hypotheses["starting_track"], hypotheses["through_going_track"])
    is_track = np.isin(topology, TRACK_TOPOLOGIES)
    for what, score, ratio, yes in (
        ("track or cascade, AUC", "p_track", track - hypotheses["cascade"], is_track),
        (
            "neutrino or muon, AUC",
            "p_neutrino",
            np.maximum(track, hypotheses["cascade"]) - hypotheses["muon_bundle"],
            topology != "muon_bundle",
        ),
    ):
        if score in ours:
            good = np.isfinite(ratio)
            network, limit = (
                roc_area(*roc_curve(values[good], yes[good]))
                for values in (ours[score], ratio)
            )
            lines.append(
                {
                    "what": what,
                    "of": "all",
                    "events": int(good.sum()),
                    "network": network,
                    "limit": limit,
                }
            )
    return lines


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a page."""
    lines = [
        "# All answers on fresh simulated events",
        "",
        context.table(result["context"]),
        "",
        "Intervals are 95%. A pull is (predicted - true) / width; 'pull of 68%' is the "
        "absolute pull that 68% of the events do not exceed.",
        "",
    ]
    for rows in filter(None, (result["figures"], result["bins"])):
        lines += ["| | of | events | value | interval | goal |", "|" + "---|" * 6]
        for row in rows:
            low, high = row["interval"]
            lines.append(
                f"| {row['what']} | {row['of']} | {row['events']:,} | "
                f"{row['value']:.3f} | {low:.3f} to {high:.3f} | {row['goal']} |"
            )
        lines.append("")
    if decades := result["decades"]:
        names = list(dict.fromkeys(name for line in decades for name in line))
        lines += [
            "By topology and true energy:",
            "",
            f"| {' | '.join(names)} |",
            "|" + "---|" * len(names),
        ]
        for line in decades:
            cells = (line.get(name, "") for name in names)
            texts = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in cells)
            lines.append(f"| {' | '.join(texts)} |")
        lines.append("")
    if limit := result.get("limit"):
        lines += [
            "The maximum of the simulation's own likelihood, with the mean loss of "
            "muons. Its topology is the true one, except for the areas under ROC "
            "curves: there it is the ratio of two maxima found blindly.",
            "",
            "| | of | events | network | likelihood |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['what']} | {row['of']} | {row['events']} | {row['network']:.3f} | "
            f"{row['limit']:.3f} |"
            for row in limit
        ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
