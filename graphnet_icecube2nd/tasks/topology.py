"""Topology: the shape of an event, as probabilities of classes.

Shape letters: B events, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.statistics import (
    effective_events,
    mean,
    share_interval,
)
from graphnet_icecube2nd.tasks.bins import weights_of
from graphnet_icecube2nd.tasks.classification import ScoreCalibration, score_figures
from graphnet_icecube2nd.tasks.label import (
    ANY_TRACK,
    TOPOLOGIES,
    TOPOLOGY,
    TOPOLOGY_CODES,
    TRACK_TOPOLOGIES,
)
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
from graphnet_icecube2nd.tasks.task import (
    FEWEST,
    Calibration,
    Column,
    Task,
    register_task,
)

Array = NDArray[np.float64]
SMALLEST = 1e-12  # probability in logarithms
TEMPERATURES = np.geomspace(0.05, 20.0, 61)  # first grid of the fit
Classes = Mapping[str, Sequence[str]] | Sequence[str]


@register_task
class Topology(Task):
    """Class of an event: kind of track or cascade, or muons.

    The outputs are logarithms of probabilities, up to a constant. The results have a
    probability for each class, and the name of the most probable class.

    Args:
        classes: Names of the classes, or the topologies of each class by name, such as
            `{"track": ["through_going_track", "starting_track"], "shower":
            ["cascade", "double_cascade"]}`. Events of other topologies have no label.
        loss: Loss: `cross_entropy`, `focal`, `smooth` (label smoothing), or
            `generalised` (tolerates wrong labels); see `tasks.losses`.

    Raises:
        ValueError: A topology or the loss is unknown, a topology is in two classes, or
            there are fewer than two classes.
    """

    name: ClassVar[str] = "topology"
    truth: ClassVar[tuple[str, ...]] = (TOPOLOGY,)
    num_outputs: ClassVar[int] = len(TOPOLOGIES)
    default_weight: ClassVar[float] = 0.3
    higher_is_better: ClassVar[tuple[str, ...]] = ("accuracy",)
    calibration_class: ClassVar[type[Calibration]] = ScoreCalibration
    columns: ClassVar[tuple[Column, ...]] = ()

    def __init__(
        self, classes: Classes = TOPOLOGIES, loss: str = "cross_entropy"
    ) -> None:
        super().__init__()
        check_one_of("loss", loss, tuple(CLASS_LOSSES))
        self.loss_name, members = loss, _members(classes)
        self.classes = tuple(members)
        self.num_outputs = len(members)  # type: ignore[misc]
        self.columns = _columns(self.classes)  # type: ignore[misc]
        class_of = {one: i for i, some in enumerate(members.values()) for one in some}
        # (codes of the label,), NaN for topologies of no class.
        self._class_of = [class_of.get(name, torch.nan) for name in TOPOLOGY_CODES]

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return the index of the class, (B,); NaN if there is none."""
        code_B = truth[TOPOLOGY]
        known_B = code_B.isfinite()
        class_B = code_B.new_tensor(self._class_of)[code_B.where(known_B, 0.0).long()]
        return class_B.where(known_B, torch.nan)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each event, (B,)."""
        return class_loss(self.loss_name, output, target)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns without calibration."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return probabilities, calibrated by a temperature, and the index of a class.

        Results have the name of the class in place of its index.
        """
        logits_BC = output.double()
        if calibration is not None:
            assert isinstance(calibration, ScoreCalibration)
            logits_BC = logits_BC * calibration.scale
        names = (column.name for column in self.columns)
        values = (*logits_BC.softmax(dim=1).unbind(1), output.argmax(dim=1))
        return dict(zip(names, values, strict=True))

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return whether the most probable class is the true one."""
        return {"accuracy": (output.argmax(dim=1) == target).float()}

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> ScoreCalibration:
        """Fit the temperature by maximum likelihood.

        Source: C. Guo et al., arXiv:1706.04599. ValueError if fewer than 100 events
        have an answer and a label, or all are of one class.
        """
        good_B = np.isfinite(output).all(axis=1) & np.isfinite(target)
        logits_BC = torch.from_numpy(output[good_B]).double()
        true_B = torch.from_numpy(target[good_B]).long()
        if len(true_B) < FEWEST:
            raise ValueError(
                f"a calibration needs at least {FEWEST} events, got {len(true_B)}"
            )
        if int(true_B.min()) == int(true_B.max()):
            raise ValueError(
                f"a calibration of {self.name} needs events of two classes at least, "
                f"found only {self.classes[int(true_B[0])]}"
            )

        def loss(scale: float) -> float:
            return float(cross_entropy(logits_BC * scale, true_B))

        scales = TEMPERATURES
        for _ in range(3):  # the loss has one minimum
            best = int(np.argmin([loss(scale) for scale in scales]))
            low, high = scales[max(best - 1, 0)], scales[min(best + 1, len(scales) - 1)]
            scales = np.geomspace(low, high, 21)
        best = int(np.argmin([loss(scale) for scale in scales]))
        return ScoreCalibration(scale=float(scales[best]), num_events=len(true_B))

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return the cross-entropy, nat, and the largest probability minus accuracy."""
        good_B = self.has_probabilities(columns)
        if not good_B.any():
            return {"cross_entropy": float("nan"), "overconfidence": float("nan")}
        p_BC, true_B = self._probabilities(columns)[good_B], target[good_B].astype(int)
        p_B = p_BC[np.arange(len(true_B)), true_B]
        accuracy = (p_BC.argmax(axis=1) == true_B).mean()
        return {
            "cross_entropy": float(-np.log(np.maximum(p_B, SMALLEST)).mean()),
            "overconfidence": float(p_BC.max(axis=1).mean() - accuracy),
        }

    def has_probabilities(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which events have probabilities from 0 to 1, (B,)."""
        p_BC = self._probabilities(columns)
        good_B: NDArray[np.bool_] = ((p_BC >= 0) & (p_BC <= 1)).all(axis=1)
        return good_B

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return accuracy, reliability and confusion of the classes."""
        tables, target, known, missing = answered_events(
            tables, target, known, self.has_probabilities
        )
        if not len(target):
            return empty_section(self.name, "Topology", missing)
        weight_B, true_B = weights_of(known, len(target)), target.astype(np.int64)
        p = {name: self._probabilities(table) for name, table in tables.items()}

        def figures(name: str, chosen_B: NDArray[np.bool_]) -> dict[str, float]:
            return _figures(
                p[name][chosen_B], true_B[chosen_B], weight_B[chosen_B], self.classes
            )

        everything_B = np.ones(len(target), bool)
        words = [name.replace("_", " ") for name in self.classes]
        rows, reliability, confusions = [], [], []
        for number, (name, p_BC) in enumerate(p.items()):
            row = event_counts(name, weight_B, missing[name])
            rows.append(row | figures(name, everything_B))
            is_true_BC = true_B[:, None] == np.arange(len(self.classes))
            curve = share_curve(
                p_BC.ravel(),
                is_true_BC.ravel(),
                name,
                number,
                np.repeat(weight_B, len(self.classes)),
                most=15,
                at_mean=True,
            )
            reliability.append(curve)
            chosen_B = p_BC.argmax(axis=1)
            cells_CC = np.zeros((len(self.classes), len(self.classes)))
            np.add.at(cells_CC, (true_B, chosen_B), weight_B)
            total_C1 = cells_CC.sum(axis=1, keepdims=True)
            confusions.append(
                Panel(
                    x_label="most probable class",
                    y_label="true class",
                    title=name,
                    cells=cells_CC / np.where(total_C1 > 0, total_C1, 1),
                    rows=tuple(words),
                    columns=tuple(words),
                )
            )
        by_bin = bins_section(
            self.name,
            "Topology",
            list(tables),
            known,
            figures,
            {
                "topology_by_bin": DrawnFigure(
                    column="accuracy", label="share of right classes", y_range=(0, 1)
                )
            },
            {"topology_by_bin": "Share of events whose most probable class is right."},
            len(target),
        )
        diagonal = np.array([0.0, 1.0])
        line = Curve(x=diagonal, y=diagonal, style="reference")
        return Section(
            task=self.name,
            title="Topology",
            text="Accuracy is the share of events whose most probable class is the "
            "true one; the balanced accuracy is its mean over the classes. The Brier "
            "score is the mean squared difference of probabilities and truth, summed "
            "over the classes: smaller is better. The AUC of a class is that of its "
            "probability, for this class against all others."
            + LEFT_OUT
            * any(missing.values()),
            figures={
                "topology_reliability": (
                    Panel(
                        x_label="probability of a class",
                        y_label="share of events of this class",
                        curves=(*reliability, line),
                        title="Reliability",
                    ),
                ),
                "topology_confusion": tuple(confusions),
            },
            captions={
                "topology_reliability": "Share of true classes in bins of their "
                "probability, for all classes together, with one standard error; the "
                "points follow the grey line if the probabilities are calibrated.",
                "topology_confusion": "Most probable classes, as shares of each true "
                "class.",
            },
            rows=rows,
            further=(by_bin,) if by_bin else (),
        )

    def _probabilities(self, columns: Columns) -> Array:
        """Return the probabilities of the classes, (B, C)."""
        return np.stack([columns[column.name] for column in self.columns[:-1]], axis=1)


def _members(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Return the topologies of each class; ValueError if they do not fit."""
    if isinstance(classes, str) or not isinstance(classes, Mapping | Sequence):
        raise ValueError(
            "classes must be names, or topologies by name of the class, got "
            f"{classes!r}"
        )
    if not isinstance(classes, Mapping):
        classes = {name: (name,) for name in classes}
    members = {
        str(name): (some,) if isinstance(some, str) else tuple(some)
        for name, some in classes.items()
    }
    if len(members) < 2:
        raise ValueError(f"classes must be two at least, got {len(members)}")
    seen: dict[str, str] = {}
    for name, some in members.items():
        if not some:
            raise ValueError(f"class {name!r} must have a topology, found none")
        for topology in some:
            check_one_of(f"topology of class {name!r}", topology, TOPOLOGY_CODES)
            if topology in seen:
                raise ValueError(
                    f"topology {topology!r} must be in one class, found it in "
                    f"{seen[topology]!r} and {name!r}"
                )
            seen[topology] = name
    # A track of unknown start belongs to a class that has both kinds.
    for name, some in members.items():
        if {*TRACK_TOPOLOGIES[:2]} <= {*some} and ANY_TRACK not in seen:
            members[name] = (*some, ANY_TRACK)
    return members


def _columns(classes: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of classes."""
    words = {name: name.replace("_", " ") for name in classes}
    return (
        *(
            Column(f"p_{name}", "", f"probability of the class {word}")
            for name, word in words.items()
        ),
        Column(TOPOLOGY, "", "most probable class", tuple(classes)),
    )


# Tables of results and lists of tasks ask the class.
Topology.columns = _columns(TOPOLOGIES)


def _figures(
    p_BC: Array, true_B: NDArray[np.int64], weight_B: Array, classes: Sequence[str]
) -> dict[str, float]:
    """Return the figures of probabilities of classes."""
    is_right_B = p_BC.argmax(axis=1) == true_B
    is_true_BC = true_B[:, None] == np.arange(p_BC.shape[1])
    share = mean(is_right_B, weight_B)
    p_B = np.maximum(p_BC[is_true_BC], SMALLEST)
    counted = weight_B > 0
    of_classes = [
        mean(is_right_B[some], weight_B[some])
        for some in ((is_true_BC[:, c] & counted) for c in range(p_BC.shape[1]))
        if some.any()
    ]
    areas: dict[str, Any] = {
        f"auc_{name}": score_figures(p_BC[:, c], is_true_BC[:, c], weight_B)["auc"]
        for c, name in enumerate(classes)
    }
    interval = share_interval(share, effective_events(weight_B))
    return {
        **with_interval("accuracy", share, *interval),
        "balanced_accuracy": float(np.mean(of_classes)),
        "brier_score": mean(((p_BC - is_true_BC) ** 2).sum(axis=1), weight_B),
        "cross_entropy": mean(-np.log(p_B), weight_B),
        **areas,
    }
