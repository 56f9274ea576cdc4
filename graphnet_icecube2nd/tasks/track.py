"""Track: is the event a track, as a probability.

Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from graphnet_icecube2nd.config import to_plain
from graphnet_icecube2nd.tasks.label import TRACK
from graphnet_icecube2nd.tasks.section import (
    LEFT_OUT,
    Curve,
    Panel,
    Section,
    empty_section,
    judged_events,
    quantile_bins,
)
from graphnet_icecube2nd.tasks.task import Calibration, Column, Task, register_task
from graphnet_icecube2nd.tasks.width import FEWEST, finite_number

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """Scales and shifts the logarithm of the odds.

    Source: J. Platt, "Probabilistic outputs for support vector machines" (1999); with
    shift 0 the temperature scaling of C. Guo et al., arXiv:1706.04599.

    Args:
        scale: By which log-odds are multiplied, 1 / temperature.
        shift: Added after that.
        num_events: Events it was fitted on.

    Raises:
        ValueError: A value is no finite number, the scale is not above 0.
    """

    scale: float
    shift: float = 0.0
    num_events: int = 0

    def __post_init__(self) -> None:
        for name in ("scale", "shift", "num_events"):
            finite_number(getattr(self, name), f"{name} of a score calibration")
        if self.scale <= 0:
            raise ValueError(
                f"scale of a score calibration must be above 0, found {self.scale}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreCalibration:
        """Rebuild what `to_dict` gave.

        Raises:
            ValueError: A value is missing, unknown or not allowed.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"no calibration of a score: {error}") from None


@register_task
class Track(Task):
    """Whether the event is a track (a muon's trail) rather than a cascade.

    The output is the logarithm of the odds.
    """

    name: ClassVar[str] = "track"
    truth: ClassVar[tuple[str, ...]] = (TRACK,)
    num_outputs: ClassVar[int] = 1
    default_weight: ClassVar[float] = 0.3
    columns: ClassVar[tuple[Column, ...]] = (
        Column("p_track", "", "probability that the event is a track"),
    )
    higher_is_better: ClassVar[tuple[str, ...]] = ("accuracy", "auc")

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for tracks, 0 for others, (B,); NaN where it is not known."""
        return truth[TRACK]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy, nat, (B,)."""
        target = target.to(output.dtype)
        return binary_cross_entropy_with_logits(output[:, 0], target, reduction="none")

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the probability of a track."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the column, with a `ScoreCalibration` applied."""
        logit_B = output[:, 0].double()
        if calibration is not None:
            assert isinstance(calibration, ScoreCalibration)
            logit_B = logit_B * calibration.scale + calibration.shift
        return {"p_track": logit_B.sigmoid()}

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return whether the likelier class is the true one."""
        return {"accuracy": ((output[:, 0] > 0) == (target > 0.5)).float()}

    def collect(self) -> dict[str, Any]:
        """Return the area under the ROC curve."""
        from torchmetrics.classification import BinaryAUROC

        return {"auc": BinaryAUROC(thresholds=None)}

    def scores(self, output: Tensor) -> Tensor:
        """Return probabilities of a track, (B,)."""
        return output[:, 0].float().sigmoid()

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> ScoreCalibration:
        """Fit scale and shift of the log-odds by maximum likelihood.

        Raises:
            ValueError: Fewer than 100 events, all of one class, or scores that fall
                where the truth rises.
        """
        good = np.isfinite(output[:, 0]) & np.isfinite(target)
        logit = torch.from_numpy(output[good, 0]).double()
        true = torch.from_numpy(target[good]).double()
        if len(logit) < FEWEST:
            raise ValueError(f"a calibration needs {FEWEST} events, got {len(logit)}")
        if float(true.min()) == float(true.max()):
            raise ValueError("a calibration of track needs tracks and others")
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
                "a calibration of track needs scores that are higher for tracks; here "
                f"the scores fall where the truth rises (scale {scale:.3g}). Check "
                "that labels and scores mean the same class"
            )
        return ScoreCalibration(scale=scale, shift=shift, num_events=len(logit))

    def calibration_figures(
        self, columns: Mapping[str, Array], target: Array
    ) -> dict[str, float]:
        """Return the cross-entropy, nat, and the mean of p_track less the truth."""
        good_B = has_probability(columns)
        if not good_B.any():
            return {"cross_entropy": float("nan"), "bias": float("nan")}
        target = target[good_B]
        p = np.clip(columns["p_track"][good_B], 1e-12, 1 - 1e-12)
        log_loss = -np.log(np.where(target > 0.5, p, 1 - p))
        return {
            "cross_entropy": float(log_loss.mean()),
            "bias": float((p - target).mean()),
        }

    def read_calibration(self, values: Mapping[str, Any]) -> ScoreCalibration:
        """Rebuild a `ScoreCalibration`."""
        return ScoreCalibration.from_dict(values)

    def report_section(
        self,
        tables: Mapping[str, Mapping[str, Array]],
        target: Array,
        known: Mapping[str, Array],
    ) -> Section:
        """Return ROC, scores, reliability and confusion."""
        tables, target, missing = judged_events(tables, target, has_probability)
        if not len(target):
            return empty_section(self.name, "Track or cascade", missing)
        is_track = target > 0.5
        rows, roc, scores, reliability = [], [], [], []
        confusions = []
        for number, (name, table) in enumerate(tables.items()):
            p = table["p_track"]
            false_rate, true_rate = roc_curve(p, is_track)
            auc = float(np.diff(false_rate) @ (true_rate[1:] + true_rate[:-1]) / 2)
            chosen = p > 0.5
            rows.append(
                {
                    "table": name,
                    "events": len(p),
                    **missing[name],
                    "tracks": int(is_track.sum()),
                    "auc": auc if 0 < is_track.sum() < len(p) else float("nan"),
                    "accuracy": float((chosen == is_track).mean()),
                    "brier_score": float(np.mean((p - is_track) ** 2)),
                }
            )
            roc.append(
                Curve(
                    x=false_rate,
                    y=true_rate,
                    label=f"{name}: AUC {auc:.3f}",
                    table=number,
                )
            )
            edges = np.linspace(0, 1, 41)
            for chosen_B, what in ((is_track, "tracks"), (~is_track, "others")):
                counts, _ = np.histogram(p[chosen_B], edges)
                density = counts / max(1, chosen_B.sum()) / np.diff(edges)
                scores.append(
                    Curve(
                        x=edges,
                        y=density,
                        label=f"{name}, {what}",
                        style="steps",
                        table=number,
                        dashed=what == "others",
                    )
                )
            bins = quantile_bins(p, 15)
            share = np.array([is_track[b].mean() for b in bins])
            error = np.sqrt(
                np.maximum(share * (1 - share), 1e-12) / [len(b) for b in bins]
            )
            reliability.append(
                Curve(
                    x=np.array([p[b].mean() for b in bins]),
                    y=share,
                    low=share - error,
                    high=share + error,
                    label=name,
                    style="points",
                    table=number,
                )
            )
            counts_22 = np.array(
                [
                    [
                        np.sum(chosen[truth] == decided) / max(1, truth.sum())
                        for decided in (True, False)
                    ]
                    for truth in (is_track, ~is_track)
                ]
            )
            confusions.append(
                Panel(
                    x_label="decision: p_track above or below 0.5",
                    y_label="true class",
                    title=name,
                    cells=counts_22,
                    rows=("track", "other"),
                    columns=("track", "other"),
                )
            )
        diagonal = np.array([0.0, 1.0])
        line = Curve(x=diagonal, y=diagonal, style="reference")
        return Section(
            task=self.name,
            title="Track or cascade",
            text="p_track is the probability that an event is a track. The area under "
            "the ROC curve (AUC) is 1 for perfect separation and 0.5 for guessing. The "
            "Brier score is the mean of (p_track - truth)^2, with truth 1 for tracks "
            "and 0 for others: smaller is better. Accuracy is the share of right "
            "decisions if events with p_track above 0.5 are called tracks."
            + LEFT_OUT
            * any(missing.values()),
            figures={
                "track_roc": (
                    Panel(
                        x_label="share of others above the threshold",
                        y_label="share of tracks above the threshold",
                        curves=(*roc, line),
                        title="ROC",
                    ),
                    Panel(
                        x_label="p_track",
                        y_label="density of events",
                        curves=tuple(scores),
                        y_log=True,
                        title="Scores",
                    ),
                ),
                "track_reliability": (
                    Panel(
                        x_label="p_track",
                        y_label="share of tracks",
                        curves=(*reliability, line),
                        title="Reliability",
                    ),
                    *confusions,
                ),
            },
            captions={
                "track_roc": "Left: share of tracks and of others whose p_track is "
                "above a threshold, for all thresholds; grey is guessing. Right: "
                "distribution of p_track of tracks (full) and of others (dashed).",
                "track_reliability": "Left: share of true tracks in bins of p_track, "
                "with one standard error; on the grey line if p_track is right. "
                "Right: decisions at p_track 0.5, as shares of each true class.",
            },
            rows=rows,
        )


def has_probability(columns: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which events have an answer, (B,): a p_track from 0 to 1."""
    p = columns["p_track"]
    return (p >= 0) & (p <= 1)  # NaN is neither


def roc_curve(score_B: Array, is_track_B: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return false and true positive rates for falling thresholds, (N,) each."""
    order = np.argsort(-score_B, kind="stable")
    hit = is_track_B[order]
    last = np.append(np.diff(score_B[order]) != 0, True)
    true_rate = np.cumsum(hit)[last] / max(1, hit.sum())
    false_rate = np.cumsum(~hit)[last] / max(1, (~hit).sum())
    return np.append(0.0, false_rate), np.append(0.0, true_rate)
