"""Energy: combined widths, and answers that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.tasks.catalogue import build_tasks
from graphnet_icecube2nd.tasks.energy import Energy
from graphnet_icecube2nd.tasks.section import Section

NAN = float("nan")


def outputs(*members: list[tuple[float, float]]) -> torch.Tensor:
    """Return outputs, (M, B, 2), of log10(E / GeV) and scale."""
    return torch.tensor(
        [[[value - 3, np.log(scale)] for value, scale in events] for events in members],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("likelihood", ["student", "gaussian"])
def test_a_combined_width_is_that_of_the_mixture(likelihood: str) -> None:
    """Against draws of the members' distributions."""
    task = Energy(likelihood)
    weights = [1.0, 3.0]
    found = task.combine(outputs([(2.0, 0.3)], [(4.0, 0.6)]), weights)
    rng = np.random.default_rng(0)
    draw = (
        rng.normal if likelihood == "gaussian" else lambda size: rng.standard_t(4, size)
    )
    drawn = np.concatenate(
        [2.0 + 0.3 * draw(size=100_000), 4.0 + 0.6 * draw(size=300_000)]
    )
    per_scale = 1.0 if likelihood == "gaussian" else np.sqrt(2.0)
    assert float(found[0, 0]) + 3 == pytest.approx(drawn.mean(), abs=0.01)
    scale = float(found[0, 1].exp())
    assert scale * per_scale == pytest.approx(drawn.std(), rel=0.02)


def test_members_that_disagree_make_a_wide_interval() -> None:
    task = Energy()
    (width,) = task.predict(task.combine(outputs([(2, 0.05)], [(4, 0.05)]), [1, 1]))[
        "energy_log10_sigma"
    ]
    assert 0.5 < float(width) < 1.5
    same = outputs([(2.5, 0.05)])
    torch.testing.assert_close(task.combine(torch.cat([same, same]), [1, 1]), same[0])


def test_members_without_an_answer_are_left_out() -> None:
    task = Energy()
    given = outputs(
        [(2.0, 0.1), (2.0, 0.1), (NAN, 0.1)],
        [(NAN, 0.2), (3.0, NAN), (NAN, NAN)],
    )
    found = task.combine(given, [1.0, 2.0])
    torch.testing.assert_close(found[:2], given[0, :2])
    assert found[2].isnan().all()


def section_of(**columns: list[float]) -> Section:
    table = {name: np.array(values) for name, values in columns.items()}
    good = {name: np.full(5, 100.0) for name in columns}
    return Energy().report_section({"bad": table, "good": good}, np.full(5, 2.0), {})


def test_answers_that_are_none_are_counted_and_left_out() -> None:
    section = section_of(
        energy=[100.0, 0.0, -5.0, 100.0, np.inf],
        energy_log10_sigma=[0.1, 0.1, 0.1, 0.0, 0.1],
    )
    bad, good = section.rows
    assert (bad["events"], bad["without_answer"], bad["bias_log10"]) == (1, 4, 0.0)
    assert (good["events"], good["without_answer"]) == (1, 0)
    assert "'without answer'" in section.text
    whole = section_of(energy=[100.0] * 5)
    assert "without_answer" not in whole.rows[0]
    assert "'without answer'" not in whole.text
    assert "regression to the mean" in whole.captions["energy_bias"]
    nothing = section_of(energy=[0.0] * 5)
    assert nothing.rows[0] == {"table": "bad", "events": 0, "without_answer": 5}
    assert not nothing.figures


def test_figures_of_a_calibration_leave_out_what_is_no_answer() -> None:
    columns = {
        "energy": np.array([100.0, 0.0, np.inf, 1000.0]),
        "energy_log10_sigma": np.array([0.1, 0.1, 0.1, -1.0]),
    }
    figures = Energy().calibration_figures(columns, np.full(4, 2.0))
    assert figures == {"bias_log10": 0.0, "inside_68": 1.0}
    none = {name: values[1:] for name, values in columns.items()}
    assert np.isnan(Energy().calibration_figures(none, np.full(3, 2.0))["inside_68"])


def test_weights_of_tasks_beside_others() -> None:
    """Directions wait where an energy counts as much; a task on its own has 1."""
    _, several = build_tasks(["direction", "energy", "track"])
    assert several == {"direction": 1.0, "energy": 0.1, "track": 0.3}
    _, alone = build_tasks(["energy"])
    assert alone == {"energy": 1.0}
    _, given = build_tasks({"direction": {}, "energy": {"weight": 2}})
    assert given == {"direction": 1.0, "energy": 2.0}
