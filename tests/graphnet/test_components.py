"""Detectors, representations, labels and losses, each against the core."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)

from graphnet.data.dataloader import collate_fn
from graphnet.models.data_representation import EdgelessGraph, KNNGraph
from graphnet.models.detector.icecube import IceCube86, IceCubeKaggle
from graphnet.training.labels import Direction
from graphnet.training.loss_functions import VonMisesFisher3DLoss
from torch_geometric.data import Batch, Data

import graphnet_icecube2nd.graphnet_adapter as adapter
from graphnet_icecube2nd import (
    FEATURE_NAMES,
    AngularDistanceLoss,
    CombinedDirectionLoss,
    PulseMap,
    VonMisesFisherLoss,
)
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.events.features import pulse_features
from graphnet_icecube2nd.events.input_config import InputConfig

pytestmark = pytest.mark.graphnet

ICECUBE86 = ["dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde"]
KAGGLE = ["x", "y", "z", "time", "charge", "auxiliary"]


def raw_event(num_pulses: int, seed: int = 0, names: list[str] = ICECUBE86) -> Any:
    rng = np.random.default_rng(seed)
    place = rng.uniform(-500, 500, (num_pulses, 3))
    time = np.sort(rng.uniform(9e3, 2e4, num_pulses))
    charge = rng.gamma(2.0, 0.6, num_pulses) + 0.05
    flag = rng.random(num_pulses) < 0.4
    rde = rng.choice([1.0, 1.35], num_pulses)
    table = np.column_stack([place, time, charge, flag, rde])
    return table[:, : len(names)]


def test_detectors_know_the_columns_of_their_files() -> None:
    assert list(adapter.KagglePulseMapDetector().feature_map()) == KAGGLE
    assert list(adapter.IceCube86PulseMapDetector().feature_map()) == ICECUBE86
    upgrade = list(adapter.UpgradePulseMapDetector().feature_map())
    assert upgrade == [*ICECUBE86, "pmt_dir_x", "pmt_dir_y", "pmt_dir_z"]
    prometheus = list(adapter.PrometheusPulseMapDetector(angles="origin").feature_map())
    assert prometheus == ["sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"]


def test_kaggle_columns_scale_as_graphnets_kaggle_detector() -> None:
    raw = torch.tensor(raw_event(20, names=KAGGLE), dtype=torch.float32)
    ours = adapter.KagglePulseMapDetector()(raw.clone(), KAGGLE)
    assert torch.equal(ours, IceCubeKaggle()(raw.clone(), KAGGLE))


@pytest.mark.parametrize("length", [1, 2, 100])
def test_packed_pulses_are_the_features_of_the_core(length: int) -> None:
    raw = raw_event(length)
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    data = representation(raw, ICECUBE86)
    columns = {name: raw[:, index] for index, name in enumerate(ICECUBE86)}
    core = pulse_features(columns, torch.tensor([0, length]), PulseMap.icecube86())
    # GraphNeT rounds to float32 before it scales; so times differ in the last digit.
    torch.testing.assert_close(data.x, core, rtol=1e-6, atol=1e-6)
    assert data.n_pulses == length
    assert representation.output_feature_names == list(FEATURE_NAMES)


def test_auxiliary_has_one_polarity() -> None:
    """True = not HLC, from either flag; twice reading turns nothing back."""
    flag = FEATURE_NAMES.index("auxiliary")
    raw = raw_event(10)
    hlc = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    kept = raw.copy()
    for _ in range(2):
        auxiliary = hlc(raw, ICECUBE86).x[:, flag]
        assert torch.equal(auxiliary, torch.tensor(1.0 - kept[:, 5]).float())
        np.testing.assert_array_equal(raw, kept)
    kaggle = adapter.PackedPulses(adapter.KagglePulseMapDetector())
    auxiliary = kaggle(raw[:, :6], KAGGLE).x[:, flag]
    assert torch.equal(auxiliary, torch.tensor(kept[:, 5]).float())


def test_switches_of_the_published_weights_reach_the_features() -> None:
    raw = raw_event(30, names=KAGGLE)
    raw[:, :3] = [57.2, -105.52, 0.0]
    raw[:, 2] = np.linspace(-450, 450, 30)
    ours = adapter.PackedPulses(adapter.KagglePulseMapDetector())(raw, KAGGLE).x
    detector = adapter.KagglePulseMapDetector(qe="published", ice="mirrored")
    published = adapter.PackedPulses(detector)(raw, KAGGLE).x
    assert torch.equal(ours[:, :6], published[:, :6])
    # The published profile is the mirror image, but for the two depths of z = 0.
    torch.testing.assert_close(ours[:, 7:], published[:, 7:].flip(0), atol=0.2, rtol=0)
    assert not torch.allclose(ours[:, 7:], published[:, 7:], atol=0.5)


def test_long_events_are_cut_and_remember_their_length() -> None:
    raw = raw_event(500)
    representation = adapter.PackedPulses(
        adapter.IceCube86PulseMapDetector(), max_pulses=192
    )
    data = representation(raw, ICECUBE86)
    assert data.x.shape == (192, 9)
    assert data.n_pulses == 500
    times = data.x[:, 3]
    assert bool((times.diff() >= 0).all()), "kept in the order they came"


def test_a_seed_fixes_the_selection_and_no_seed_does_not() -> None:
    raw = raw_event(400)

    def kept(seed: int | None) -> torch.Tensor:
        detector = adapter.IceCube86PulseMapDetector()
        representation = adapter.PackedPulses(detector, max_pulses=50, seed=seed)
        return representation(raw, ICECUBE86).x

    assert torch.equal(kept(1), kept(1))
    assert not torch.equal(kept(1), kept(2))
    assert not torch.equal(kept(None), kept(None))


def test_hlc_first_keeps_hlc_pulses() -> None:
    raw = raw_event(400)
    representation = adapter.PackedPulses(
        adapter.IceCube86PulseMapDetector(), max_pulses=100, selection="hlc_first"
    )
    assert raw[:, 5].sum() > 100
    assert float(representation(raw, ICECUBE86).x[:, 5].max()) == 0.0


@pytest.mark.parametrize("detector", [adapter.IceCube86PulseMapDetector])
def test_node_definition_gives_the_same_features_on_graphnets_graphs(
    detector: Any,
) -> None:
    raw = raw_event(300)
    packed = adapter.PackedPulses(detector(), max_pulses=64, seed=3)
    nodes = adapter.DeepIcePulses(pulse_map="icecube86", max_pulses=64, seed=3)
    graph = KNNGraph(detector=detector(), node_definition=nodes, columns=[0, 1, 2])
    data = graph(raw, ICECUBE86)
    assert torch.equal(data.x, packed(raw, ICECUBE86).x)
    assert data.edge_index.shape[0] == 2
    assert data.n_pulses == 300


@pytest.mark.parametrize("make", [EdgelessGraph, KNNGraph])
def test_an_event_without_pulses_is_an_empty_graph(make: Any) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    nodes = adapter.DeepIcePulses(pulse_map="icecube86")
    graph = make(detector, node_definition=nodes, input_feature_names=ICECUBE86)
    empty = graph(np.zeros((0, 7)), ICECUBE86)
    assert (empty.x.shape, int(empty.n_pulses)) == ((0, 9), 0)
    batch = adapter.collate_events([empty, graph(raw_event(5), ICECUBE86)])
    assert batch.ptr.tolist() == [0, 0, 5]


def test_weights_of_positions_from_the_centre_of_charge() -> None:
    """A node definition cannot give them; without them all answers would be wrong."""
    detector = adapter.IceCube86PulseMapDetector()
    nodes = adapter.DeepIcePulses(pulse_map="icecube86")
    backbone = adapter.ModelBackbone("t_d32").eval()
    config = InputConfig.of(detector.detector)
    centred = adapter.PackedPulses(detector, positions="charge_centre")
    plain = EdgelessGraph(detector, node_definition=nodes)
    for positions in ("detector", "charge_centre"):
        backbone.model.input_config = replace(config, positions=positions)
        backbone(adapter.collate_events([centred(raw_event(5), ICECUBE86)]))
        data = adapter.collate_events([plain(raw_event(5), ICECUBE86)])
        if positions == "detector":
            backbone(data)
        else:
            with pytest.raises(ValueError, match="positions='charge_centre'"):
                backbone(data)


@pytest.mark.parametrize(
    ("detector", "names"),
    [
        (adapter.KagglePulseMapDetector(), None),
        (adapter.IceCube86PulseMapDetector(), ["area", *ICECUBE86[::-1]]),
        (
            adapter.UpgradePulseMapDetector(replace_with_identity=["pmt_dir_x"]),
            None,
        ),
        (adapter.PrometheusPulseMapDetector("flight", origin=(1, 2, 3)), None),
    ],
)
def test_columns_scaled_at_once_are_those_scaled_one_by_one(
    detector: Any, names: list[str] | None
) -> None:
    names = names or list(detector.feature_map())
    raw = np.random.default_rng(0).gamma(2.0, 90.0, (40, len(names)))
    for dtype in (torch.float32, torch.float64):
        value_TC = torch.tensor(raw, dtype=dtype)
        fast = detector.scaled(value_TC.numpy(), names)
        assert fast.tobytes() == detector(value_TC, names).numpy().tobytes()


def test_node_definition_takes_any_pulse_map() -> None:
    pulse_map = PulseMap.icecube86(ice="none").to_dict()
    nodes = adapter.DeepIcePulses(ICECUBE86, pulse_map=pulse_map)
    x = adapter.IceCube86PulseMapDetector()(torch.tensor(raw_event(5)), ICECUBE86)
    assert float(nodes(x)[:, 7:].abs().max()) == 0.0


def test_graphnets_own_detectors_are_refused() -> None:
    with pytest.raises(TypeError, match="got IceCube86"):
        adapter.PackedPulses(IceCube86())


def test_times_of_a_running_clock_keep_their_nanoseconds() -> None:
    names = ["sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"]
    raw = np.zeros((3, 4))
    raw[:, 3] = 1.5e8 + np.array([1.0, 0.0, 3.0])
    data = adapter.PackedPulses(adapter.PrometheusPulseMapDetector(angles="origin"))(
        raw, names
    )
    torch.testing.assert_close(data.x[:, 3] * 3e4, torch.tensor([1.0, 0.0, 3.0]))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("charge", 0.0, r"event 17, pulse 4: column 'charge' is 0; .* above 0 p\.e\."),
        ("dom_time", np.nan, r"event 17, pulse 4: column 'dom_time' is nan; .* finite"),
        ("dom_x", np.inf, r"event 17, pulse 4: column 'dom_x' is inf"),
        ("hlc", 2.0, r"event 17, pulse 4: column 'hlc' is 2; it must be 0 or 1"),
    ],
)
def test_bad_values_are_named(column: str, value: float, message: str) -> None:
    raw = raw_event(9)
    raw[4, ICECUBE86.index(column)] = value
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    with pytest.raises(ValueError, match=message):
        representation(raw, ICECUBE86, [{"event_no": np.array([17])}])


def test_wrong_values_are_named_with_their_event() -> None:
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    raw = raw_event(3).astype(object)
    raw[1, 4] = None
    with pytest.raises(ValueError, match="column 'charge' is nan"):
        representation(raw, ICECUBE86)
    with pytest.raises(ValueError, match="event 5, pulse 1"):
        representation(raw, ICECUBE86, [{"event_no": np.array([5])}])
    raw[1, 4] = "much"
    with pytest.raises(ValueError, match="column 'charge'"):
        representation(raw, ICECUBE86)
    good = representation(
        raw_event(3), ICECUBE86, [{"event_no": np.array(["run1_e5"])}]
    )
    assert len(good.x) == 3
    wrong = raw_event(3)
    wrong[0, 4] = 0.0
    with pytest.raises(ValueError, match="event run1_e5, pulse 0"):
        representation(wrong, ICECUBE86, [{"event_no": ["run1_e5"]}])
    empty = representation(np.zeros((0, 7)), ICECUBE86, [{"event_no": np.array([5])}])
    assert (empty.x.shape, int(empty.n_pulses)) == ((0, 9), 0)


def test_columns_are_checked_when_the_representation_is_made() -> None:
    detector = adapter.IceCube86PulseMapDetector()
    with pytest.raises(ValueError, match=r"needs column charge.* dom_x"):
        adapter.PackedPulses(
            detector, input_feature_names=[n for n in ICECUBE86 if n != "charge"]
        )
    with pytest.raises(ValueError, match=r"needs column x, y, z.* time"):
        adapter.PackedPulses(
            adapter.KagglePulseMapDetector(), input_feature_names=KAGGLE[3:]
        )
    with pytest.raises(ValueError, match="'hlc_first' needs a column auxiliary or hlc"):
        adapter.PackedPulses(
            adapter.PrometheusPulseMapDetector(angles="origin"), selection="hlc_first"
        )
    with pytest.raises(ValueError, match="perturbation_dict: hlc cannot be smeared"):
        adapter.PackedPulses(detector, perturbation_dict={"hlc": 0.1})
    without_rde = adapter.PackedPulses(detector, input_feature_names=ICECUBE86[:6])
    at_a_dom = raw_event(1)[:, :6]
    at_a_dom[0, :3] = [45.77, -34.41, -360.0]
    assert without_rde(at_a_dom, ICECUBE86[:6]).x.shape == (1, 9)


def test_geometry_and_ice_of_the_users_own(tmp_path: Path) -> None:
    doms, ice = tmp_path / "doms.csv", tmp_path / "ice.txt"
    doms.write_text("sensor_id,x,y,z,rde\n0,0,0,0,1.35\n1,100,0,0,1.0\n")
    ice.write_text(
        "depth scattering_len absorption_len\n"
        "1000 10 100\n1900 20 200\n2000 30 300\n3000 40 400\n"
    )
    names = [name for name in ICECUBE86 if name != "rde"]
    raw = raw_event(2)[:, :6]
    raw[:, :3] = [[0.2, 0.0, 0.0], [100.0, 0.0, 0.0]]
    own = {"geometry": str(doms), "ice_table": str(ice)}
    detector = adapter.IceCube86PulseMapDetector()
    data = adapter.PackedPulses(detector, input_feature_names=names, **own)(raw, names)
    assert data.x[:, 6].tolist() == [1.0, 0.0], "high quantum efficiency"
    # z = 0 lies at 1948.07 m, where the user's scattering length is 24.807 m.
    table = IceModel.icecube().scattering_length_N
    low, median, high = np.percentile(table, [25, 50, 75])
    wanted = (24.807 - median) / (high - low)
    np.testing.assert_allclose(data.x[:, 7], wanted, rtol=1e-5)
    nodes = adapter.DeepIcePulses(names, pulse_map="icecube86", **own)
    x = detector(torch.tensor(raw, dtype=torch.float32), names)
    assert torch.equal(nodes(x), data.x)


def test_unknown_choices_are_named() -> None:
    detector = adapter.IceCube86PulseMapDetector()
    with pytest.raises(ValueError, match="unknown selection 'best'"):
        adapter.PackedPulses(detector, selection="best")
    with pytest.raises(ValueError, match=r"must be a whole number, .* got 0"):
        adapter.PackedPulses(detector, max_pulses=0)
    with pytest.raises(ValueError, match="qe must be one of rde, published"):
        adapter.KagglePulseMapDetector(qe="yes")
    with pytest.raises(ValueError, match="no detector named 'antares'"):
        adapter.DeepIcePulses(pulse_map="antares")
    with pytest.raises(ValueError, match="angles must be one of origin, flight"):
        adapter.OriginDirection(angles="down")


def test_columns_in_any_order_with_more_and_without_rde() -> None:
    """GraphNeT's datasets drop what a file lacks, and its lists name more."""
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    raw = raw_event(5)
    wanted = representation(raw[:, :6], ICECUBE86[:6]).x
    names = ["pmt_area", *ICECUBE86[5::-1]]
    shuffled = np.column_stack([np.full(5, 0.0444), raw[:, 5::-1]])
    assert torch.equal(representation(shuffled, names).x, wanted)
    smeared = adapter.PackedPulses(
        adapter.IceCube86PulseMapDetector(), perturbation_dict={"dom_time": 1.0}
    )
    with pytest.raises(ValueError, match=r"perturbation_dict.*got "):
        smeared(shuffled, names)


def test_files_without_a_flag_are_a_matter_of_the_pulse_map() -> None:
    detector = adapter.IceCube86PulseMapDetector(changes={"hlc": None})
    names = [name for name in ICECUBE86 if name != "hlc"]
    assert list(detector.feature_map()) == names
    data = adapter.PackedPulses(detector)(raw_event(4)[:, [0, 1, 2, 3, 4, 6]], names)
    assert float(data.x[:, 5].abs().max()) == 0.0


def test_smearing_that_leaves_the_allowed_range_is_noticed() -> None:
    detector = adapter.IceCube86PulseMapDetector()
    smeared = adapter.PackedPulses(detector, perturbation_dict={"charge": 5.0}, seed=0)
    with pytest.raises(ValueError, match=r"column 'charge'.*found nan"):
        smeared(raw_event(200), ICECUBE86)


def test_a_node_definition_notices_values_that_cannot_be() -> None:
    nodes = adapter.DeepIcePulses(pulse_map="icecube86")
    detector = adapter.IceCube86PulseMapDetector()
    graph = KNNGraph(detector=detector, node_definition=nodes)
    for column, value in (("charge", -1.0), ("hlc", 3.0), ("dom_x", np.inf)):
        raw = raw_event(9)
        raw[4, ICECUBE86.index(column)] = value
        with pytest.raises(ValueError, match=f"pulse 4.*'{column}'"):
            graph(raw, ICECUBE86)
    theirs = KNNGraph(
        detector=IceCube86(), node_definition=nodes, input_feature_names=ICECUBE86
    )
    with pytest.raises(ValueError, match=r"column 'rde' .* a pulse-map detector"):
        theirs(raw_event(9), ICECUBE86)


def test_columns_that_further_features_are_made_of_must_be_scaled() -> None:
    with pytest.raises(ValueError, match="hlc must be scaled"):
        adapter.IceCube86PulseMapDetector(replace_with_identity=["hlc"])
    pulse_map = PulseMap.icecube86(extra=("width",), extra_scale=(8.0,)).to_dict()
    x = torch.tensor(np.column_stack([raw_event(3), [8.0, 16.0, 24.0]]))
    for unscaled, wanted in ((None, [1, 2, 3]), (["width"], [8, 16, 24])):
        detector = adapter.PulseMapDetector(pulse_map, replace_with_identity=unscaled)
        assert detector(x.clone(), [*ICECUBE86, "width"])[:, 7].tolist() == wanted
    with pytest.raises(ValueError, match=r"name of a detector, .* got int"):
        adapter.PulseMapDetector(86)


def test_masks_and_inactive_sensors_say_that_they_are_not_supported() -> None:
    graph = KNNGraph(
        detector=adapter.IceCube86PulseMapDetector(),
        node_definition=adapter.DeepIcePulses(pulse_map="icecube86"),
        add_inactive_sensors=True,
    )
    with pytest.raises(ValueError, match="sensor_mask"):
        graph(raw_event(3), ICECUBE86)


def test_a_detector_deeper_than_its_origin() -> None:
    detector = adapter.PrometheusPulseMapDetector(
        angles="origin", ice="correct", origin=(0.0, 0.0, -1948.07)
    )
    names = list(detector.feature_map())
    raw = np.array([[0.0, 0.0, -1948.07, 5.0], [0.0, 0.0, -2048.07, 9.0]])
    x = adapter.PackedPulses(detector)(raw, names).x
    torch.testing.assert_close(x[:, 2], torch.tensor([0.0, -0.2]), atol=1e-5, rtol=0)
    core = IceModel.icecube().scaled_at(torch.tensor([0.0, -100.0]))
    torch.testing.assert_close(x[:, 7:], core, atol=1e-4, rtol=0)


def test_collate_keeps_what_graphnets_collate_drops() -> None:
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    graphs = [representation(raw_event(length), ICECUBE86) for length in (1, 5, 1)]
    batch = adapter.collate_events(graphs)
    assert batch.ptr.tolist() == [0, 1, 6, 7]
    assert batch.n_pulses.tolist() == [1, 5, 1]
    assert collate_fn(graphs).num_graphs == 1
    with pytest.raises(ValueError, match="at least one event"):
        adapter.collate_events([])


@pytest.mark.parametrize("kind", ["PackedPulses", "graphs with edges"])
def test_collate_gives_the_batch_of_pyg(kind: str) -> None:
    detector = adapter.IceCube86PulseMapDetector()
    make: Any = adapter.PackedPulses(detector, max_pulses=20)
    if kind != "PackedPulses":
        nodes = adapter.DeepIcePulses(pulse_map="icecube86", max_pulses=20)
        make = KNNGraph(detector, node_definition=nodes, nb_nearest_neighbours=2)
    graphs = []
    for number, length in enumerate((9, 40, 3)):
        truth = {"event_no": np.array([number]), "energy": np.array([1.5])}
        graph = make(raw_event(length), ICECUBE86, [truth], data_path="a.db")
        graph["direction"] = torch.ones(1, 3)
        graph["my_index"] = torch.tensor([0])  # which PyG shifts by the nodes before
        graphs.append(graph)
    ours, theirs = adapter.collate_events(graphs), Batch.from_data_list(graphs)
    assert set(ours.keys()) == set(theirs.keys())
    for one, other in (
        (ours, theirs),
        (ours._slice_dict, theirs._slice_dict),
        (ours._inc_dict, theirs._inc_dict),
        *zip(ours.to_data_list(), theirs.to_data_list(), strict=True),
    ):
        for key in other.keys():  # noqa: SIM118
            if torch.is_tensor(other[key]):
                assert torch.equal(one[key], other[key]), key
                assert one[key].dtype == other[key].dtype, key
            else:
                assert one[key] == other[key], key


def test_truth_becomes_what_graphnet_makes_of_it() -> None:
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    labels = {"event_no": np.array([2**53 + 1]), "track": -1, "muon": 1, "kind": 2}
    truth = {
        "event_no": np.array([2.0**53]),
        "energy": np.array([1.5], np.float32),
        "track": np.array([True]),  # in place of the label
        "kind": np.array(["nu"]),  # no number: the label stays
        "name": "a",
        "several": np.arange(3),
        "weight": 0.5,
    }
    truth_dicts = [labels, truth, {"dom": np.arange(4, dtype=np.int16)}]
    ours = representation(raw_event(4), ICECUBE86, truth_dicts)
    theirs = representation._add_truth(Data(), truth_dicts)
    assert {"event_no", "kind", "several", "weight", "dom"} <= set(theirs.keys())
    assert set(ours.keys()) - {"x", "n_pulses", "features", "units"} == {
        *theirs.keys(),
        "graph_definition",
        "data_representation",
    }
    for key, value in theirs.to_dict().items():
        assert torch.equal(ours[key], value), key
        assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape), key


def test_label_points_to_the_origin() -> None:
    data = {"azimuth": torch.tensor([0.3]), "zenith": torch.tensor([2.0])}
    origin = adapter.OriginDirection()(data)
    torch.testing.assert_close(origin, Direction()(data))
    flight = adapter.OriginDirection(angles="flight")(data)
    torch.testing.assert_close(flight, -origin)


def test_label_of_a_detector_is_that_of_its_pulse_map() -> None:
    data = {
        "injection_azimuth": torch.tensor([0.3]),
        "injection_zenith": torch.tensor([2.0]),
    }
    flight = adapter.PrometheusPulseMapDetector(angles="flight")
    flight = flight.direction_label()(data)
    origin = adapter.PrometheusPulseMapDetector(angles="origin").direction_label()(data)
    torch.testing.assert_close(flight, -origin)
    assert adapter.KagglePulseMapDetector().direction_label("d").key == "d"


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"azimuth": 0.3}, "needs azimuth and zenith; .* azimuth"),
        (
            {"azimuth": 0.3, "zenith": 120.0},
            r"must be in rad, .*'zenith' is \[120\.0\]",
        ),
        ({"azimuth": 200.0, "zenith": 1.0}, "'azimuth' is"),
        ({"azimuth": 0.3, "zenith": np.nan}, "'zenith' is"),
    ],
)
def test_angles_that_cannot_be_are_named(truth: dict[str, float], message: str) -> None:
    data = {key: torch.tensor([value]) for key, value in truth.items()}
    with pytest.raises(ValueError, match=message):
        adapter.OriginDirection()(data)


@pytest.mark.parametrize(
    ("component", "core"),
    [
        (adapter.ExactVonMisesFisher3DLoss(), VonMisesFisherLoss()),
        (
            adapter.ExactVonMisesFisher3DLoss(normalisation="published"),
            VonMisesFisherLoss(normalisation="published"),
        ),
        (adapter.AngularDistance(), AngularDistanceLoss()),
        (adapter.CombinedDirection(), CombinedDirectionLoss()),
        (adapter.CombinedDirection(vmf_weight=0.2), CombinedDirectionLoss(0.2)),
    ],
)
def test_losses_are_those_of_the_core(component: Any, core: Any) -> None:
    torch.manual_seed(0)
    vector = torch.randn(11, 3) * torch.logspace(-1, 4, 11)[:, None]
    kappa = vector.norm(dim=1, keepdim=True)
    prediction = torch.cat((vector / kappa, kappa), dim=1)
    target = torch.nn.functional.normalize(torch.randn(11, 3), dim=1)
    elements = component(prediction, target[:, None], return_elements=True)
    expected = core(vector, target, reduction="none")
    torch.testing.assert_close(elements, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(component(prediction, target), elements.mean())


def test_graphnets_loss_is_ours_below_kappa_100_and_another_above() -> None:
    direction = torch.tensor([[0.0, 0.0, 1.0]])
    off = torch.tensor([[0.0, np.sin(0.01), np.cos(0.01)]], dtype=torch.float32)
    for kappa, equal in ((50.0, True), (5e4, False)):
        prediction = torch.cat((direction, torch.tensor([[kappa]])), dim=1)
        ours = adapter.ExactVonMisesFisher3DLoss()(prediction, off)
        theirs = VonMisesFisher3DLoss()(prediction, off)
        assert torch.allclose(ours, theirs, rtol=1e-4) == equal


def test_loss_shapes_are_named() -> None:
    loss = adapter.AngularDistance()
    with pytest.raises(ValueError, match=r"prediction must be \(B, 4\)"):
        loss(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"target must be \(2, 3\) .* got \(2, 2\)"):
        loss(torch.ones(2, 4), torch.ones(2, 2))


def test_weights_per_event_have_an_effect() -> None:
    """GraphNeT's datasets give weights (N, 1); its losses broadcast them away."""
    torch.manual_seed(1)
    prediction = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    prediction = torch.cat((prediction, torch.rand(5, 1) * 9 + 1), dim=1)
    target = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    weights = torch.tensor([[1.0], [0.0], [3.0], [0.5], [2.0]])
    loss = adapter.ExactVonMisesFisher3DLoss()
    elements = loss(prediction, target, return_elements=True)
    weighted = loss(prediction, target, weights=weights)
    torch.testing.assert_close(weighted, (elements * weights[:, 0]).mean())


def test_backbone_says_what_it_reads() -> None:
    backbone = adapter.DeepIceBackbone(dim=32, dim_base=8, depth=1, head_size=16)
    assert backbone.nb_outputs == 32
    representation = adapter.PackedPulses(adapter.IceCube86PulseMapDetector())
    data = representation(raw_event(5), ICECUBE86)
    assert backbone(data).shape == (1, 32), "one event that is no batch"
    data.x = data.x[:, :6]
    with pytest.raises(ValueError, match=r"reads 9 features .* data\.x has 6"):
        backbone(data)


def test_extra_features_go_from_file_to_backbone() -> None:
    detector = adapter.UpgradePulseMapDetector()
    names = list(detector.feature_map())
    raw = np.column_stack([raw_event(6), np.random.default_rng(0).normal(size=(6, 3))])
    data = adapter.PackedPulses(detector)(raw, names)
    assert data.x.shape == (6, 12)
    backbone = adapter.DeepIceGNNBackbone(
        dim=32, dim_base=8, depth=1, head_size=16, extra_features=names[7:]
    )
    first = backbone(data)
    data.x[:, 9:] += 0.1
    assert not torch.equal(backbone(data), first)
    other = adapter.DeepIceBackbone(
        dim=32, dim_base=8, depth=1, head_size=16, extra_features=["a", "b", "c"]
    )
    with pytest.raises(ValueError, match=r"\(x, .*, a, b, c\), data\.x has 12 \(x, "):
        other(adapter.collate_events([data, data]))


def test_columns_of_another_pulse_map_are_recognised() -> None:
    with pytest.raises(ValueError, match="pulse map 'icecube86'"):
        adapter.DeepIcePulses(ICECUBE86)
    with pytest.raises(ValueError, match=r"PulseMap\.kaggle\(charge=None\)"):
        adapter.DeepIcePulses([name for name in KAGGLE if name != "charge"])
