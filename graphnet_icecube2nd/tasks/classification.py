"""Tasks that answer a yes-no question with a probability, and their calibration.

Shape letters: B events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.statistics import (
    FALSE_RATE,
    NORMAL_95,
    auc_error,
    density,
    mean,
    roc_area,
    roc_band,
    roc_curve,
)
from graphnet_icecube2nd.tasks.bins import weights_of
from graphnet_icecube2nd.tasks.losses import CLASS_LOSSES, class_loss
from graphnet_icecube2nd.tasks.section import (
    LEFT_OUT,
    Columns,
    Curve,
    DrawnFigure,
    Panel,
    Section,
    Tables,
    answered_events,
    bins_section,
    empty_section,
    event_counts,
    share_curve,
    with_interval,
)
from graphnet_icecube2nd.tasks.task import FEWEST, Calibration, Task, finite_number

Array = NDArray[np.float64]
SCORE_EDGES = np.linspace(0, 1, 41)
ROC_GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration(Calibration):
    """Scales and shifts the logarithm of the odds.

    Source: J. Platt, "Probabilistic outputs for support vector machines" (1999). With
    shift 0 it is the temperature scaling of C. Guo et al., arXiv:1706.04599.

    Raises:
        ValueError: A value is not a finite number, or the scale is not above 0.
    """

    what: ClassVar[str] = "calibration of a score"

    scale: float  # 1 / temperature
    shift: float = 0.0  # added after scaling
    num_events: int = 0

    def __post_init__(self) -> None:
        for name in ("scale", "shift", "num_events"):
            finite_number(getattr(self, name), f"{name} of a score calibration")
        if self.scale <= 0:
            raise ValueError(
                f"scale of a score calibration must be above 0, found {self.scale}"
            )


class BinaryTask(Task):
    """Base of tasks whose output is the logarithm of the odds of the first class.

    A subclass defines `target` (1: first class, 0: second), one column (the probability
    of the first class), the names of the classes, and the title of its section.

    Args:
        loss: Loss: `cross_entropy`, `focal`, `smooth` (label smoothing), or
            `generalised` (tolerates wrong labels); see `tasks.losses`.

    Raises:
        ValueError: The loss is unknown.
    """

    classes: ClassVar[tuple[str, str]]
    title: ClassVar[str]
    num_outputs: ClassVar[int] = 1
    higher_is_better: ClassVar[tuple[str, ...]] = ("accuracy", "auc")
    calibration_class: ClassVar[type[Calibration]] = ScoreCalibration

    def __init__(self, loss: str = "cross_entropy") -> None:
        super().__init__()
        check_one_of("loss", loss, tuple(CLASS_LOSSES))
        self.loss_name = loss

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each event, (B,)."""
        logits_B2 = torch.cat([torch.zeros_like(output), output], dim=1)
        return class_loss(self.loss_name, logits_B2, target > 0.5)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the probability of the first class."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the column, with a `ScoreCalibration` applied."""
        logit_B = output[:, 0].double()
        if calibration is not None:
            assert isinstance(calibration, ScoreCalibration)
            logit_B = logit_B * calibration.scale + calibration.shift
        return {self.columns[0].name: logit_B.sigmoid()}

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return whether the more likely class is the true one."""
        return {"accuracy": ((output[:, 0] > 0) == (target > 0.5)).float()}

    def collect(self) -> dict[str, Any]:
        """Return the area under the ROC curve, of weighted events."""
        from torchmetrics import Metric
        from torchmetrics.utilities import dim_zero_cat

        class Area(Metric):
            higher_is_better = True
            score: list[Tensor]
            target: list[Tensor]
            weight: list[Tensor]

            def __init__(self) -> None:
                super().__init__()
                # Of one dimension: ranks without events gather such a state.
                for name in ("score", "target", "weight"):
                    self.add_state(name, [], dist_reduce_fx="cat")

            def update(
                self, score_B: Tensor, target_B: Tensor, weight_B: Tensor | None = None
            ) -> None:
                weight_B = torch.ones_like(score_B) if weight_B is None else weight_B
                self.score.append(score_B.float())
                self.target.append(target_B.float())
                self.weight.append(weight_B.float())

            def compute(self) -> Tensor:
                score_B, target_B, weight_B = (
                    dim_zero_cat(state).cpu().double().numpy()
                    for state in (self.score, self.target, self.weight)
                )
                rates = roc_curve(score_B, target_B > 0.5, weight_B)
                return torch.tensor(roc_area(*rates))

        return {"auc": Area()}

    def scores(self, output: Tensor) -> Tensor:
        """Return probabilities of the first class, (B,)."""
        return output[:, 0].float().sigmoid()

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> ScoreCalibration:
        """Fit scale and shift of the log-odds by maximum likelihood."""
        yes, no = self.classes
        good_B = np.isfinite(output[:, 0]) & np.isfinite(target)
        logit = torch.from_numpy(output[good_B, 0]).double()
        true = torch.from_numpy(target[good_B]).double()
        if len(logit) < FEWEST:
            raise ValueError(
                f"a calibration needs at least {FEWEST} events, got {len(logit)}"
            )
        if float(true.min()) == float(true.max()):
            raise ValueError(
                f"a calibration of {self.name} needs events of both classes, {yes}s "
                f"and {no}s"
            )
        parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [parameters], max_iter=100, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = binary_cross_entropy_with_logits(
                logit * parameters[0] + parameters[1], true
            )
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        scale, shift = parameters.detach().tolist()
        if scale <= 0:
            raise ValueError(
                f"a calibration of {self.name} needs scores that are higher for {yes}s;"
                f" here they are lower (scale {scale:.3g}). Check that labels and "
                "scores refer to the same class, or train for longer"
            )
        return ScoreCalibration(scale=scale, shift=shift, num_events=len(logit))

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return the cross-entropy, nat, and the mean of probability minus truth."""
        good_B = self.has_probability(columns)
        if not good_B.any():
            return {"cross_entropy": float("nan"), "bias": float("nan")}
        target = target[good_B]
        p = np.clip(columns[self.columns[0].name][good_B], 1e-12, 1 - 1e-12)
        log_loss = -np.log(np.where(target > 0.5, p, 1 - p))
        return {
            "cross_entropy": float(log_loss.mean()),
            "bias": float((p - target).mean()),
        }

    def has_probability(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which events have an answer, (B,): a probability from 0 to 1."""
        p = columns[self.columns[0].name]
        return (p >= 0) & (p <= 1)  # False for NaN

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return ROC, scores, reliability and confusion."""
        tables, target, known, missing = answered_events(
            tables, target, known, self.has_probability
        )
        if not len(target):
            return empty_section(self.name, self.title, missing)
        column, (yes, no) = self.columns[0].name, self.classes
        is_yes, weight_B = target > 0.5, weights_of(known, len(target))
        everything_B = np.ones(len(target), bool)

        def figures(name: str, chosen_B: NDArray[np.bool_]) -> dict[str, float]:
            p = tables[name][column][chosen_B]
            return score_figures(p, is_yes[chosen_B], weight_B[chosen_B])

        rows, roc, scores, reliability, confusions = [], [], [], [], []
        for number, (name, table) in enumerate(tables.items()):
            p = table[column]
            chosen = p > 0.5
            counts = {**missing[name], f"{yes}s": int(is_yes.sum())}
            row = event_counts(name, weight_B, counts) | figures(name, everything_B)
            rows.append(row)
            false_rate, true_rate = roc_curve(p, is_yes, weight_B)
            low, high = roc_band(p, is_yes, ROC_GRID, weight_B)
            roc.append(
                Curve(
                    x=ROC_GRID,
                    y=np.interp(ROC_GRID, false_rate, true_rate),
                    low=low,
                    high=high,
                    label=f"{name}: AUC {row['auc']:.3f}",
                    table=number,
                )
            )
            for of_class, what in ((is_yes, yes), (~is_yes, no)):
                scores.append(
                    Curve(
                        x=SCORE_EDGES,
                        y=density(p[of_class], SCORE_EDGES, weight_B[of_class]),
                        label=f"{name}, {what}s",
                        style="steps",
                        table=number,
                        dashed=what == no,
                    )
                )
            curve = share_curve(
                p, is_yes, name, number, weight_B, most=15, at_mean=True
            )
            reliability.append(curve)
            cells_22 = [
                [
                    weight_B[of_class & (chosen == decided)].sum()
                    / (weight_B[of_class].sum() or 1)
                    for decided in (True, False)
                ]
                for of_class in (is_yes, ~is_yes)
            ]
            confusions.append(
                Panel(
                    x_label=f"decision: {column} above or below 0.5",
                    y_label="true class",
                    title=name,
                    cells=np.array(cells_22),
                    rows=self.classes,
                    columns=self.classes,
                )
            )
        by_bin = bins_section(
            self.name,
            self.title,
            list(tables),
            known,
            figures,
            {
                f"{self.name}_by_bin": DrawnFigure(
                    column="auc", label="area under the ROC curve", nominal=0.5
                )
            },
            {f"{self.name}_by_bin": "Area under the ROC curve; 0.5 is guessing."},
            len(target),
        )
        diagonal = np.array([0.0, 1.0])
        line = Curve(x=diagonal, y=diagonal, style="reference")
        return Section(
            task=self.name,
            title=self.title,
            text=f"{column} is the probability that an event is a {yes}. The area "
            "under the ROC curve (AUC) is 1 for perfect separation and 0.5 for "
            "guessing. The partial AUC counts only thresholds that at most "
            f"{FALSE_RATE:.0%} of the {no}s pass, on the same scale. The Brier score "
            f"is the mean of ({column} - truth)^2, with truth 1 for {yes}s and 0 for "
            f"{no}s: smaller is better. Accuracy is the share of right decisions if "
            f"events with {column} above 0.5 are called {yes}s."
            + LEFT_OUT
            * any(missing.values()),
            figures={
                f"{self.name}_roc": (
                    Panel(
                        x_label=f"share of {no}s above the threshold",
                        y_label=f"share of {yes}s above the threshold",
                        curves=(*roc, line),
                        title="ROC",
                    ),
                    Panel(
                        x_label=column,
                        y_label="density of events",
                        curves=tuple(scores),
                        y_log=True,
                        title="Scores",
                    ),
                ),
                f"{self.name}_reliability": (
                    Panel(
                        x_label=column,
                        y_label=f"share of {yes}s",
                        curves=(*reliability, line),
                        title="Reliability",
                    ),
                    *confusions,
                ),
            },
            captions={
                f"{self.name}_roc": f"Left: share of {yes}s and of {no}s whose "
                f"{column} is above a threshold, for all thresholds; the grey line is "
                "guessing, bands are 95% bootstrap intervals. Right: distribution of "
                f"{column} for {yes}s (full) and for {no}s (dashed).",
                f"{self.name}_reliability": f"Left: share of true {yes}s in bins of "
                f"{column}, with one standard error; the points follow the grey line "
                f"if {column} is calibrated. Right: decisions at {column} 0.5, as "
                "shares of each true class.",
            },
            rows=rows,
            further=(by_bin,) if by_bin else (),
        )


def score_figures(
    p_B: Array, is_yes_B: NDArray[np.bool_], weight_B: Array
) -> dict[str, float]:
    """Return AUC, partial AUC, accuracy and Brier score of probabilities.

    The areas are NaN if there are no events of one class.
    """
    rates = roc_curve(p_B, is_yes_B, weight_B)
    error = auc_error(p_B, is_yes_B, weight_B)
    auc = roc_area(*rates) + 0 * error  # NaN for one class
    half = NORMAL_95 * error
    return {
        **with_interval("auc", auc, max(0.0, auc - half), min(1.0, auc + half)),
        "partial_auc": roc_area(*rates, FALSE_RATE) + 0 * error,
        "accuracy": mean((p_B > 0.5) == is_yes_B, weight_B),
        "brier_score": mean((p_B - is_yes_B) ** 2, weight_B),
    }
