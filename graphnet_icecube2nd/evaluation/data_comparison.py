"""Comparison of two sets of events, such as data and simulation, by distributions.

Distributions are compared in shape: each is divided by its sum of weights. A classifier
that tells the sets apart finds differences that no single distribution shows; its area
under the ROC curve is 0.5 if it finds none. Shape letters: B events, C columns, H bins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.event_quantities import event_quantities
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.results.result_files import (
    EVENT_NAMES,
    OK,
    read_columns,
    real_numbers,
)
from graphnet_icecube2nd.statistics import (
    NORMAL_95,
    auc_error,
    effective_events,
    kolmogorov_smirnov,
    mean,
    quantile,
    roc_area,
    roc_curve,
)
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.tasks.bins import FEWEST
from graphnet_icecube2nd.tasks.catalogue import STATUS
from graphnet_icecube2nd.tasks.section import Curve, Panel, Section, with_interval

RUN_NAMES = ("run_id", "run", "RunID")  # columns of the run, the first that exists
FOLDS = 5
NUM_BINS = 30
OUTER = (0.002, 0.998)  # quantiles at the ends of a histogram
LOG_RATIO = 50  # ratio of these quantiles above which the axis is logarithmic
MOST_RUNS = 200

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedEvents:
    """Columns of one set of events.

    Args:
        name: Name of the set.
        columns: Numbers, (B,) each, by name; NaN where an event has none.
        weight_B: Weights, (B,).
        weight_name: Column of the weights; empty if all events count alike.
        run_B: Number or name of the run of each event, (B,); None if unknown.
        livetime: Livetime, s; the rate is the sum of the weights divided by it.
        num_simulated: Number of events of a simulated store, with and without weight;
            the rate is then the sum of the weights (Hz) divided by it, their mean.
        notes: Sentences on events that are left out.
    """

    name: str
    columns: Mapping[str, Array]
    weight_B: Array
    weight_name: str = ""
    run_B: NDArray[Any] | None = None
    livetime: float = 1.0
    num_simulated: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        weight: str | None = None,
        run: str | None = None,
        livetime: float | None = None,
    ) -> ComparedEvents:
        """Read a table of results, or the pulses of a store.

        Args:
            path: Table of results (parquet, CSV, SQLite), or folder of a store.
            name: Name of the set; default: that of the file.
            weight: Column of the weights; without this column all events count alike.
            run: Column of the run; default: one of `RUN_NAMES`, if there is one.
            livetime: Livetime, s; default: 1 s. The rate of a simulated store with
                weights does not need it, which a note says if it is given.

        Raises:
            OSError: The file does not exist.
            ValueError: The file cannot be read, or has bad weights, no event or no
                column of numbers.
        """
        path = Path(path)
        name = name or path.stem
        is_simulated = False
        if path.is_dir():
            store = EventStore(path)
            is_simulated = store.manifest.kind == "simulation"
            others = {n: store.whole_event_column(n) for n in store.event_columns}
            columns = event_quantities(store)
        else:
            others = read_columns(path)
            hidden = (*EVENT_NAMES, STATUS, weight, run, *RUN_NAMES)
            columns = {
                n: values.astype(np.float64)
                for n, values in others.items()
                if values.dtype.kind in "iuf" and n not in hidden
            }
        event_id = others[next(n for n in (*EVENT_NAMES, *others) if n in others)]
        weight_B, weight_name = np.ones(len(event_id)), ""
        if weight is not None and weight in others:
            weight_name = weight
            weight_B = real_numbers(others[weight], f"{path}: {weight}")
            bad_B = ~(np.isfinite(weight_B) & (weight_B >= 0))
            if bad_B.any():
                row = int(bad_B.argmax())
                raise ValueError(
                    f"{path}, event {event_id[row]}: the weight (column {weight}) must "
                    f"be a finite number, 0 or more, found {weight_B[row]:g}"
                )
        run = run or next((n for n in RUN_NAMES if n in others), None)
        good_B, notes = weight_B > 0, []
        has_rate = is_simulated and bool(weight_name)
        if has_rate and livetime is not None:
            notes.append(
                f"the livetime of {name}, {livetime:g} s, is not used: the rate of a "
                "simulated store is the mean of its weights"
            )
        if STATUS in others:
            good_B &= others[STATUS].astype(str) == OK
            if count := int((others[STATUS].astype(str) != OK).sum()):
                notes.append(f"{count:,} events of {name} have no result")
        if not good_B.any():
            raise ValueError(f"{path} must have events with a result and a weight")
        if not columns:
            raise ValueError(
                f"{path} must have columns of numbers, found {', '.join(others)}"
            )
        return cls(
            name=name,
            columns={n: values[good_B] for n, values in columns.items()},
            weight_B=weight_B[good_B],
            weight_name=weight_name,
            run_B=others[run][good_B] if run in others else None,
            livetime=1.0 if livetime is None else livetime,
            num_simulated=len(weight_B) if has_rate else None,
            notes=tuple(notes),
        )

    def finite(self, column: str) -> tuple[Array, Array]:
        """Return a column's finite values and their weights."""
        value_B = self.columns[column]
        good_B = np.isfinite(value_B)
        return value_B[good_B], self.weight_B[good_B]

    def of_run(self, run: Any) -> ComparedEvents:
        """Return the events of one run."""
        here_B = self.run_B == run
        columns = {name: values[here_B] for name, values in self.columns.items()}
        return replace(self, columns=columns, weight_B=self.weight_B[here_B])


@dataclass(frozen=True, kw_only=True, eq=False)
class DataComparison:
    """Two sets of events side by side.

    Args:
        sets: First and second set.
        rows: Row for each column that both have, the largest difference first.
        auc: Area under the ROC curve of the classifier and the ends of its 95%
            interval; None without it.
        runs: Row for each run.
        notes: Sentences on what is not compared.
    """

    sets: tuple[ComparedEvents, ComparedEvents]
    rows: Sequence[Row]
    auc: tuple[float, float, float] | None
    runs: Sequence[Row] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def compare_data(
    first: ComparedEvents,
    second: ComparedEvents,
    *,
    classifier: bool = True,
    seed: int = 0,
) -> DataComparison:
    """Compare two sets of events by all columns that both have.

    Args:
        first: Set of events, such as data.
        second: Set of events, such as simulation, with which runs are compared.
        classifier: Whether a classifier is trained to tell the sets apart.
        seed: Random seed of the classifier's folds.

    Raises:
        ImportError: scikit-learn is not installed, and a classifier is wanted.
        ValueError: The sets have one name, or no column in common.
    """
    if first.name == second.name:
        raise ValueError(f"two sets must have different names, found {first.name!r}")
    sets = (first, second)
    notes = [*first.notes, *second.notes]
    names = [name for name in first.columns if name in second.columns]
    if not names:
        raise ValueError(
            f"{first.name} and {second.name} have no column of numbers in common: "
            f"{', '.join(first.columns)}; {', '.join(second.columns)}"
        )
    rows: list[Row] = []
    for name in names:
        found = [one.finite(name) for one in sets]
        if not all(weight.any() for _, weight in found):
            notes.append(f"{name} is not compared: a set has no finite value")
        elif len({*np.unique(np.concatenate([v for v, _ in found])[:1000])}) > 1:
            rows.append({"quantity": name, **_figures(*found)})
        else:
            notes.append(f"{name} is not compared: it is constant")
    if not rows:
        raise ValueError(f"nothing can be compared: {'; '.join(notes)}")
    if first.run_B is not None and (count := len(np.unique(first.run_B))) > MOST_RUNS:
        notes.append(
            f"{count - MOST_RUNS:,} of the {count:,} runs are not compared: only the "
            f"first {MOST_RUNS} are"
        )
    rows.sort(key=lambda row: -row["ks_scaled"])
    used = [str(row["quantity"]) for row in rows]
    return DataComparison(
        sets=sets,
        rows=rows,
        auc=_classifier_auc(sets, used, seed) if classifier else None,
        runs=_runs(first, second, used),
        notes=tuple(notes),
    )


def _figures(first: tuple[Array, Array], second: tuple[Array, Array]) -> Row:
    """Return means, medians and the Kolmogorov-Smirnov test of values and weights."""
    row: Row = {}
    for which, (value, weight) in (("first", first), ("second", second)):
        row[f"mean_{which}"] = mean(value, weight)
        row[f"median_{which}"] = float(quantile(value, [0.5], weight)[0])
    distance, p_value = kolmogorov_smirnov(first[0], second[0], first[1], second[1])
    sizes = [effective_events(weight) for _, weight in (first, second)]
    scaled = distance * np.sqrt(sizes[0] * sizes[1] / sum(sizes))
    return row | {
        "ks_distance": distance,
        "ks_scaled": float(scaled),
        "p_value": p_value,
    }


def _classifier_auc(
    sets: tuple[ComparedEvents, ComparedEvents], names: Sequence[str], seed: int
) -> tuple[float, float, float] | None:
    """Return the cross-validated area under the ROC curve and its 95% interval.

    None if a set has too few events. Both sets have the same sum of weights.
    """
    import_extra("sklearn", "the classifier of compare-data needs", "compare")
    from sklearn.ensemble import HistGradientBoostingClassifier

    if min(len(one.weight_B) for one in sets) < FOLDS * FEWEST:
        return None
    x_BC = np.concatenate(
        [np.stack([one.columns[n] for n in names], axis=1) for one in sets]
    )
    x_BC = np.where(np.isfinite(x_BC), x_BC, np.nan)
    weight_B = np.concatenate([one.weight_B / one.weight_B.mean() for one in sets])
    is_first_B = np.arange(len(x_BC)) < len(sets[0].weight_B)
    generator = np.random.default_rng(seed)
    fold_B = np.empty(len(x_BC), np.int64)
    for of_set in (is_first_B, ~is_first_B):
        fold_B[of_set] = generator.permutation(of_set.sum()) % FOLDS
    leaf = min(100, len(x_BC) // 20)  # few events can be split, too
    areas, variances = [], []
    for fold in range(FOLDS):
        here_B = fold_B == fold
        train = weight_B * ~here_B
        for of_set in (is_first_B, ~is_first_B):
            train[of_set] *= len(x_BC) / (2 * train[of_set].sum())
        model = HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=8, min_samples_leaf=leaf, random_state=seed
        )
        kept = ~here_B
        model.fit(x_BC[kept], is_first_B[kept], sample_weight=train[kept])
        score = model.predict_proba(x_BC[here_B])[:, 1]
        given = score, is_first_B[here_B], weight_B[here_B]
        areas.append(roc_area(*roc_curve(*given)))
        variances.append(auc_error(*given) ** 2)
    auc, half = float(np.mean(areas)), NORMAL_95 * np.sqrt(np.sum(variances)) / FOLDS
    return auc, float(auc - half), float(auc + half)


def _runs(
    first: ComparedEvents, second: ComparedEvents, names: Sequence[str]
) -> list[Row]:
    """Return a row for each run of the first set, compared with the second set.

    If both sets have runs in common, each run is compared with the same run.
    """
    if first.run_B is None:
        return []
    runs = np.unique(first.run_B)[:MOST_RUNS]
    common = second.run_B is not None and bool(np.isin(runs, second.run_B).any())
    whole = {} if common else {name: _ordered(*second.finite(name)) for name in names}
    rows: list[Row] = []
    for run in runs.tolist():
        here, there = first.of_run(run), second.of_run(run) if common else second
        row: Row = {"run": run, "events": len(here.weight_B)}
        row |= {"sum_of_weights": float(here.weight_B.sum())}
        tests = {}
        if effective_events(here.weight_B) >= FEWEST:
            for name in names:
                value, weight = here.finite(name)
                other, other_weight = whole.get(name) or there.finite(name)
                if len(value) and len(other):
                    tests[name] = kolmogorov_smirnov(value, other, weight, other_weight)
        if tests:
            worst = min(tests, key=lambda name: tests[name][1])
            distance, p_value = tests[worst]
            row |= {
                "largest_difference": worst,
                "ks_distance": distance,
                # Of the smallest of several p-values.
                "p_value": float(min(1.0, p_value * len(tests))),
            }
        rows.append(row)
    return rows


def _ordered(value_B: Array, weight_B: Array) -> tuple[Array, Array]:
    """Return values and weights in ascending order of the values."""
    order = np.argsort(value_B, kind="stable")
    return value_B[order], weight_B[order]


def comparison_sections(comparison: DataComparison) -> list[Section]:
    """Return the sections of the report."""
    first, second = comparison.sets
    rates: list[Row] = []
    for one in comparison.sets:
        size = one.num_simulated or one.livetime
        total = float(one.weight_B.sum()) / size
        error = NORMAL_95 * float(np.sqrt(np.square(one.weight_B).sum())) / size
        rates.append(
            {
                "set": one.name,
                "events": len(one.weight_B),
                "effective_events": effective_events(one.weight_B),
                **with_interval("rate", total, total - error, total + error),
            }
        )
    text = " ".join(
        f"The rate of {one.name} is the mean weight of all {one.num_simulated:,} "
        "events of the simulated store. "
        if one.num_simulated
        else f"The rate of {one.name} is the sum of the weights (1 for each event "
        f"without weights) divided by the livetime ({one.livetime:g} s). "
        for one in comparison.sets
    )
    auc = comparison.auc
    if auc is not None:
        says = "finds a difference" if auc[1] > 0.5 else "finds no difference"
        text += (
            "A classifier that is trained to tell the sets apart by all quantities "
            f"below reaches an area under the ROC curve of {auc[0]:.4f} ({auc[1]:.4f} "
            f"to {auc[2]:.4f}, 95%, cross-validated): it {says}. 0.5 is guessing. "
        )
    sections = [
        Section(
            task="comparison",
            table="rates",
            title=f"{first.name} and {second.name}",
            text=text + " ".join(f"{note}." for note in comparison.notes),
            rows=rates,
        ),
        Section(
            task="comparison",
            table="quantities",
            title="Distributions",
            text=f"'first' is {first.name}, 'second' is {second.name}. The "
            "Kolmogorov-Smirnov distance (ks distance) is the largest difference of "
            "the cumulative distributions. ks scaled is the distance times the root of "
            "n m / (n + m), with the effective numbers of events n and m; the p-value "
            "is 0.05 at 1.36 and 0.001 at 1.95. For values with many ties it is too "
            "large. The first quantity differs most.",
            figures={
                "distributions": tuple(
                    _panel(str(row["quantity"]), comparison.sets)
                    for row in comparison.rows
                )
            },
            captions={
                "distributions": "Distributions of both sets, each divided by its sum "
                "of weights, and their ratio (first by second), with one standard "
                f"error. Bins with fewer than {FEWEST} effective events in a set have "
                "no ratio."
            },
            rows=comparison.rows,
        ),
    ]
    if comparison.runs:
        sections.append(
            Section(
                task="comparison",
                table="runs",
                title="Runs",
                text=f"Runs of {first.name}, each compared with {second.name} (with "
                "the same run, if it has it). The p-value is that of the quantity that "
                "differs most, times the number of quantities.",
                rows=comparison.runs,
            )
        )
    return sections


def _edges(value_B: Array, weight_B: Array) -> tuple[Array, bool]:
    """Return the edges of a histogram, (H + 1,), and whether they are logarithmic."""
    low, high = quantile(value_B, OUTER, weight_B).tolist()
    if low == high:
        low, high = float(value_B.min()), float(value_B.max())
    if low > 0 and high > LOG_RATIO * low:
        return np.geomspace(low, high, NUM_BINS + 1), True
    is_whole = bool((value_B == np.round(value_B)).all())
    if is_whole and high - low < 4 * NUM_BINS:  # no empty bins between integers
        step = np.ceil((high - low + 1) / NUM_BINS)
        return np.arange(low - 0.5, high + step, step), False
    return np.linspace(low, high, NUM_BINS + 1), False


def _panel(name: str, sets: tuple[ComparedEvents, ComparedEvents]) -> Panel:
    """Return the panel of a column, with the ratio below."""
    found = [one.finite(name) for one in sets]
    # Both sets count alike for the borders.
    weights = [weight / weight.sum() for _, weight in found]
    edges, is_log = _edges(
        np.concatenate([v for v, _ in found]), np.concatenate(weights)
    )
    curves, shares, errors, sizes = [], [], [], []
    for number, (one, (value, _), weight) in enumerate(
        zip(sets, found, weights, strict=True)
    ):
        share, _ = np.histogram(value, edges, weights=weight)
        square, _ = np.histogram(value, edges, weights=weight**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            sizes.append(np.where(square > 0, share**2 / square, 0.0))
            errors.append(np.sqrt(square) / share)
        shares.append(share)
        curve = Curve(x=edges, y=share, label=one.name, style="steps", table=number)
        curves.append(curve)
    good = np.minimum(*sizes) >= FEWEST
    middle = np.sqrt(edges[1:] * edges[:-1]) if is_log else (edges[1:] + edges[:-1]) / 2
    below: tuple[Curve, ...] = ()
    if good.any():
        ratio = (shares[0][good] / shares[1][good]).astype(np.float64)
        error = ratio * np.hypot(errors[0][good], errors[1][good])
        below = (
            Curve(
                x=middle[good],
                y=ratio,
                low=ratio - error,
                high=ratio + error,
                style="points",
            ),
            Curve(x=edges[[0, -1]], y=np.ones(2), style="reference"),
        )
    words, _, unit = name.rpartition("_")
    has_unit = unit in ("ns", "m", "pe", "rad", "GeV")
    label = f"{words} [{'p.e.' if unit == 'pe' else unit}]" if has_unit else name
    return Panel(
        x_label=label.replace("_", " "),
        y_label="share of events in a bin",
        curves=tuple(curves),
        x_log=is_log,
        below=below,
        below_label="ratio",
    )
