"""Members of an ensemble share what hangs on the batch alone, and say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graphnet_icecube2nd import DeepIce, PackedBatch, build_model
from graphnet_icecube2nd.events.input_config import InputConfig
from graphnet_icecube2nd.models.ensemble_model import EnsembleModel, outputs_together
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.nn import edge_conv, embedding, interval_attention

SIZES = {"dim": 64, "dim_base": 16, "depth": 2}
# The competition's five, made small: two head sizes, two kinds of first graph.
MEMBERS = {"b_d32": 16, "b_d64": 32, "b_d32_4rel": 16, "s_gnn": 16, "b_gnn": 32}

MakeBatch = Callable[..., PackedBatch]
Fill = Callable[[DeepIce], DeepIce]


def directions_together(models: Any, batch: PackedBatch) -> torch.Tensor:
    outputs = outputs_together(models, batch)
    return torch.stack([output["direction"] for output in outputs])


@pytest.fixture
def members(fill_weights: Fill) -> list[DeepIce]:
    return [
        fill_weights(build_model(name, **SIZES, head_size=head_size)).eval()
        for name, head_size in MEMBERS.items()
    ]


def count_calls(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    function = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_each_says_what_it_says_alone(
    members: list[DeepIce], make_batch: MakeBatch
) -> None:
    batch = make_batch([13, 1, 47, 2])
    together_MB3 = directions_together(members, batch)
    assert together_MB3.shape == (5, 4, 3)
    with torch.no_grad():
        for member, found_B3 in zip(members, together_MB3, strict=True):
            torch.testing.assert_close(found_B3, member(batch), rtol=1e-5, atol=1e-5)


def test_work_is_done_once(
    members: list[DeepIce], make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch([13, 1, 47, 2])
    waves = count_calls(interval_attention, "interval_waves", monkeypatch)
    graphs = count_calls(edge_conv, "nearest_neighbours", monkeypatch)
    sinusoids = count_calls(embedding, "sinusoids", monkeypatch)

    def numbers() -> tuple[int, int, int]:
        found = len(waves), len(graphs), len(sinusoids)
        for calls in (waves, graphs, sinusoids):
            calls.clear()
        return found

    with torch.no_grad():
        for member in members:
            member(batch)
    # Per event and member; four graphs a hybrid; four quantities a member.
    assert numbers() == (5 * 4, 2 * 4, 5 * 4)
    directions_together(members, batch)
    # Per event and head size; the first graphs differ (with and without time).
    assert numbers() == (2 * 4, 2 * 4, 4)
    directions_together([members[3], members[3]], batch)
    assert numbers() == (4, 2 * 3 + 1, 4)


def test_batches_do_not_mix(members: list[DeepIce], make_batch: MakeBatch) -> None:
    first, second = make_batch([13, 1], seed=1), make_batch([13, 1], seed=2)
    wanted = directions_together(members, second)
    directions_together(members, first)
    assert torch.equal(directions_together(members, second), wanted)
    assert not torch.equal(directions_together(members, first), wanted)


def test_no_model(make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match="at least one model"):
        directions_together([], make_batch([3]))
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleModel([])


def member(tasks: Any, **config: Any) -> Model:
    model = build_model("t_sim", tasks=tasks, **SIZES, head_size=16)
    model.input_config = InputConfig(**config) if config else None
    return model


def test_a_task_that_not_all_members_have_is_named() -> None:
    models = [member(["direction", "energy"]), member(["direction", "track"])]
    with pytest.warns(UserWarning, match=r"energy, track.*b has direction, track"):
        together = EnsembleModel(models, names=["a", "b"])
    assert list(together.task_map) == ["direction"]
    with pytest.raises(ValueError, match="no task in common: member 0 has energy"):
        EnsembleModel([member(["energy"]), member(["track"])])


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("clock", ("window", "first_pulse")),
        ("telescope", ("icecube", "orca")),
        ("positions", ("detector", "charge_centre")),
    ],
)
def test_members_of_different_inputs_are_refused(
    what: str, values: tuple[str, str]
) -> None:
    models = [member(["energy"]), *(member(["energy"], **{what: v}) for v in values)]
    first, second = values
    with pytest.raises(
        ValueError, match=rf"member 1 has {what} '{first}', member 2 has '{second}'"
    ):
        EnsembleModel(models)


def test_options_of_a_task_must_be_the_same() -> None:
    student, gaussian = (
        member({"energy": {"likelihood": name}}) for name in ("student", "gaussian")
    )
    with pytest.raises(ValueError, match=r"member 0 has .*student.*member 1.*gaussian"):
        EnsembleModel([student, gaussian])
    EnsembleModel([student, member(["energy"])])  # the default, said and not said
    groups = {"shower": ["cascade"], "muon": ["starting_track"]}
    other = dict(reversed(groups.items()))  # another order of the outputs
    classes = [member({"topology": {"classes": one}}) for one in (groups, other)]
    with pytest.raises(ValueError, match="topology"):
        EnsembleModel(classes)
    # A direction reads the same of all its losses.
    losses = [member({"direction": {"loss": name}}) for name in ("vmf", "combined")]
    EnsembleModel(losses)


def test_ranges_are_what_all_members_know() -> None:
    models = [
        member(["energy"], ranges={"time": (0, 50), "x": (-500, 500)}),
        member(["energy"]),
        member(["energy"], ranges={"time": (10, 90), "charge": (1, 9)}),
    ]
    config = EnsembleModel(models).input_config
    assert config is not None
    assert config.ranges == {"time": (10, 50), "x": (-500, 500), "charge": (1, 9)}
    assert EnsembleModel(models[1:2]).input_config is None
