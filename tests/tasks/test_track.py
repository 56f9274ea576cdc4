"""Track: calibrations and probabilities that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.tasks.classification import ScoreCalibration
from graphnet_icecube2nd.tasks.track import Track


def test_scores_the_wrong_way_round_are_refused() -> None:
    rng = np.random.default_rng(1)
    true = (rng.random(500) > 0.5).astype(float)
    logit = (4 * (true - 0.5) + 3 * rng.normal(size=500))[:, None]
    assert Track().calibrate(logit, true).scale > 0
    with pytest.raises(ValueError, match=r"track needs scores .*scale -"):
        Track().calibrate(-logit, true)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": "abc"}, "scale .* must be a number, found 'abc'"),
        ({"scale": float("nan")}, "scale .* must be finite, found nan"),
        ({"scale": 1.0, "shift": float("inf")}, "shift .* must be finite"),
        ({"scale": 1.0, "shift": None}, "shift .* must be a number"),
        ({"scale": -1.0}, "scale .* must be above 0"),
        ({"scale": 1.0, "num_events": "9"}, "num_events .* must be a number"),
    ],
)
def test_a_stored_calibration_is_made_of_numbers(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ScoreCalibration.from_dict(values)


def test_probabilities_that_are_none_are_counted_and_left_out() -> None:
    p = np.array([0.0, 1.0, 0.8, -0.1, 1.5, np.nan])
    true = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    section = Track().report_section({"t": {"p_track": p}}, true, {})
    (row,) = section.rows
    assert (row["events"], row["without_answer"], row["tracks"]) == (3, 3, 2)
    assert row["brier_score"] == pytest.approx(0.04 / 3)
    figures = Track().calibration_figures({"p_track": p}, true)
    assert figures["bias"] == pytest.approx(-0.2 / 3)
    nothing = Track().report_section({"t": {"p_track": p[3:]}}, true[3:], {})
    assert nothing.rows == [{"table": "t", "events": 0, "without_answer": 3}]
    assert np.isnan(Track().calibration_figures({"p_track": p[3:]}, true[3:])["bias"])


def test_a_rank_without_events_gathers_states_of_one_dimension() -> None:
    area = Track().collect()["auc"]
    states = list(area._defaults)
    area.update(torch.tensor([0.1, 0.7, 0.9]), torch.tensor([0.0, 0.0, 1.0]))
    # torchmetrics gathers an empty state as a tensor of one dimension.
    assert [getattr(area, name)[0].ndim for name in states] == [1, 1, 1]
    assert float(area.compute()) == 1.0
