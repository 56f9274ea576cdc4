"""What every registered model promises, whoever registers it.

At reduced sizes by default; at full sizes (slow) one pass forward and one back. Weights
are drawn so large that attention is far from uniform: at the small weights of a fresh
model most mistakes would stay below any tolerance.
"""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from graphnet_icecube2nd import (
    DeepIce,
    DeepIceGNN,
    PackedBatch,
    build_model,
    list_models,
)
from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.models.registry import MODELS
from graphnet_icecube2nd.nn.packing import Packing

REDUCED = {"dim": 64, "dim_base": 16, "depth": 2, "head_size": 32}
TOLERANCE = 1e-5  # relative, of the same event in another surrounding
PRIME_LENGTHS = [13, 1, 47, 2, 7, 29]

MakeBatch = Callable[..., PackedBatch]
Fill = Callable[[DeepIce], DeepIce]

# Those of the package: other test files register backbones of their own.
OURS = [n for n in list_models() if MODELS.get(n).__module__.startswith("graphnet_")]
every_model = pytest.mark.parametrize("name", OURS)


@pytest.fixture
def model(name: str, fill_weights: Fill) -> DeepIce:
    """A registered model, made small."""
    return fill_weights(build_model(name, **REDUCED)).eval()


def predict(model: DeepIce, batch: PackedBatch) -> Tensor:
    with torch.no_grad():
        return model(batch)


def deviation(found: Tensor, wanted: Tensor) -> float:
    """Largest component's deviation over the prediction's norm, worst event."""
    worst_B = (found.double() - wanted.double()).abs().amax(1)
    return float((worst_B / wanted.double().norm(dim=1)).max())


def table_deviation(found: Tensor, wanted: Tensor) -> float:
    size = wanted.abs().max().clamp_min(1e-12)
    return float((found - wanted).abs().max() / size)


def select(batch: PackedBatch, events: Sequence[int]) -> PackedBatch:
    """Some events of a batch, in the order asked for."""
    parts = batch.features.split(batch.lengths.tolist())
    chosen = [parts[event] for event in events]
    return PackedBatch.from_events(chosen, n_pulses=batch.n_pulses[list(events)])


def gradients(model: DeepIce, batch: PackedBatch) -> dict[str, Tensor]:
    model.zero_grad()
    model(batch).pow(2).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def check_forward_and_backward(model: DeepIce, batch: PackedBatch) -> None:
    prediction_B3 = model(batch)
    assert prediction_B3.shape == (len(batch), 3)
    assert prediction_B3.dtype == torch.float32
    assert prediction_B3.isfinite().all()
    kappa_B = prediction_B3.norm(dim=1)
    assert (kappa_B > 0).all()
    length_B = (prediction_B3 / kappa_B[:, None]).norm(dim=1)
    torch.testing.assert_close(length_B, torch.ones(len(batch)))
    prediction_B3.pow(2).sum().backward()
    idle = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            idle.add(name)
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name
    # The published forward never calls the read-out of the graph branch.
    read_out = {
        name for name, _ in model.named_parameters() if name.startswith("graph.readout")
    }
    assert idle == read_out
    assert len(read_out) == (4 if isinstance(model, DeepIceGNN) else 0)


@every_model
def test_forward_and_backward(model: DeepIce, name: str, make_batch: MakeBatch) -> None:
    check_forward_and_backward(model, make_batch(PRIME_LENGTHS))


@pytest.mark.slow
@every_model
def test_forward_and_backward_at_full_size(name: str, make_batch: MakeBatch) -> None:
    check_forward_and_backward(build_model(name), make_batch([17, 1, 5]))


@every_model
def test_latent_vectors_of_events(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    """Features and head are separate calls."""
    batch = make_batch(PRIME_LENGTHS)
    with torch.no_grad():
        latent_BD = model.embed_events(batch)
        assert latent_BD.shape == (len(batch), model.dim)
        assert torch.equal(model.head(latent_BD), model(batch))


@every_model
@pytest.mark.parametrize("length", [1, 2, 3, 9, 192])
def test_one_event_alone(
    model: DeepIce, name: str, make_batch: MakeBatch, length: int
) -> None:
    prediction = predict(model, make_batch([length]))
    assert prediction.shape == (1, 3)
    assert prediction.isfinite().all()
    assert (prediction.norm(dim=1) > 0).all()


@every_model
def test_one_pulse_and_full_length_together(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    batch = make_batch([1, 192], n_pulses=[1, 100_000])
    found = predict(model, batch)
    for event in range(2):
        alone = predict(model, select(batch, [event]))
        assert deviation(found[event : event + 1], alone) < TOLERANCE


@every_model
def test_batch_does_not_matter(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    """Alone, among shorter and among longer events, in whatever order."""
    lengths = [*PRIME_LENGTHS, 101]
    batch = make_batch(lengths, n_pulses=[*PRIME_LENGTHS, 5000])
    wanted = predict(model, batch)
    for events in ([4, 1, 0], [6, 3, 5, 0, 2, 1, 4], *([e] for e in range(7))):
        found = predict(model, select(batch, events))
        assert deviation(found, wanted[events]) < TOLERANCE


@every_model
def test_padding_content_does_not_matter(
    model: DeepIce,
    name: str,
    make_batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever stands in padded places is not heard."""
    batch = make_batch(PRIME_LENGTHS)
    wanted, wanted_gradients = predict(model, batch), gradients(model, batch)
    pad = Packing.pad

    def pad_with_noise(packing: Packing, packed: Tensor) -> Tensor:
        padded = pad(packing, packed)
        is_padding = ~packing.valid_BL.view(
            *packing.valid_BL.shape, *(1,) * (padded.ndim - 2)
        )
        noise = 10 * torch.randn(padded.shape, dtype=padded.dtype)
        return torch.where(is_padding, noise, padded)

    monkeypatch.setattr(Packing, "pad", pad_with_noise)
    assert deviation(predict(model, batch), wanted) < TOLERANCE
    found_gradients = gradients(model, batch)
    assert found_gradients.keys() == wanted_gradients.keys()
    for parameter, gradient in found_gradients.items():
        assert table_deviation(gradient, wanted_gradients[parameter]) < 1e-4, parameter


@every_model
def test_pulse_order_does_not_matter(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    """No two pulses of these events are equally far: no kNN ties."""
    batch = make_batch(PRIME_LENGTHS)
    wanted = predict(model, batch)
    events = [
        event[torch.randperm(len(event))]
        for event in batch.features.split(batch.lengths.tolist())
    ]
    shuffled = PackedBatch.from_events(events, n_pulses=batch.n_pulses)
    assert not torch.equal(shuffled.features, batch.features)
    assert deviation(predict(model, shuffled), wanted) < TOLERANCE


@every_model
def test_column_order_does_not_matter(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    batch = make_batch([11, 3])
    turned = replace(batch, features=batch.features.flip(1), names=batch.names[::-1])
    assert torch.equal(predict(model, turned), predict(model, batch))


@every_model
def test_coinciding_pulses(model: DeepIce, name: str, make_batch: MakeBatch) -> None:
    """An afterpulse in the same DOM at the same time: finite, also the gradients."""
    batch = make_batch([6, 12])
    features = batch.features.clone()
    features[6:] = features[6]
    batch = replace(batch, features=features)
    assert predict(model, batch).isfinite().all()
    for parameter, gradient in gradients(model, batch).items():
        assert gradient.isfinite().all(), parameter


@every_model
def test_training_mode_changes_nothing(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    batch = make_batch(PRIME_LENGTHS)
    wanted = predict(model, batch)
    assert torch.equal(predict(model.train(), batch), wanted)


@every_model
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_copies(
    model: DeepIce, name: str, make_batch: MakeBatch, duplicate: str
) -> None:
    batch = make_batch([7, 1])
    if duplicate == "deepcopy":
        other = copy.deepcopy(model)
    else:
        other = pickle.loads(pickle.dumps(model))
    assert torch.equal(predict(other, batch), predict(model, batch))
    with torch.no_grad():
        other.head.weight.zero_()
    assert (model.head.weight != 0).any()


@every_model
def test_arguments_build_it_anew(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    twin = type(model)(**model.kwargs())
    twin.load_state_dict(model.state_dict())
    batch = make_batch([7, 1])
    assert torch.equal(predict(twin, batch), predict(model, batch))


@every_model
def test_recomputing_blocks_changes_nothing(
    name: str, fill_weights: Fill, make_batch: MakeBatch
) -> None:
    batch = make_batch(PRIME_LENGTHS)
    outputs, all_gradients = [], []
    for use_checkpoint in (False, True):
        model = build_model(name, **REDUCED, use_checkpoint=use_checkpoint)
        fill_weights(model)
        outputs.append(model(batch).detach())
        all_gradients.append(gradients(model, batch))
    assert deviation(*outputs) < 1e-6
    plain, recomputed = all_gradients
    assert recomputed.keys() == plain.keys()
    for parameter, gradient in recomputed.items():
        assert table_deviation(gradient, plain[parameter]) < 1e-6, parameter


@every_model
def test_float64(model: DeepIce, name: str, make_batch: MakeBatch) -> None:
    batch = make_batch(PRIME_LENGTHS)
    wanted = predict(model, batch)
    found = predict(model.double(), replace(batch, features=batch.features.double()))
    assert found.dtype == torch.float64
    assert deviation(found, wanted) < 1e-4


@every_model
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_bfloat16(model: DeepIce, name: str, make_batch: MakeBatch, way: str) -> None:
    """Finite, and near what float32 says: bfloat16 has 8 bits."""
    batch = make_batch([*PRIME_LENGTHS, 97, 64])
    wanted = predict(model, batch)
    if way == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = predict(model, batch)
        assert found.dtype == torch.float32  # the head is never rounded
    else:
        found = predict(model.bfloat16(), batch)
        assert found.dtype == torch.bfloat16
    assert found.isfinite().all()
    # Measured over the models: at most 1.4 degrees, 0.5 in the mean.
    angle_B = torch.rad2deg(opening_angle(found.float(), wanted))
    assert angle_B.max() < 4
    assert angle_B.mean() < 1.5


@every_model
def test_gradients_under_autocast(
    model: DeepIce, name: str, make_batch: MakeBatch
) -> None:
    batch = make_batch(PRIME_LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, batch)
    for parameter, gradient in found.items():
        assert gradient.dtype == torch.float32, parameter
        assert gradient.isfinite().all(), parameter


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="torch.compile needs a C++ compiler: none in CXX, no g++",
)
# PyTorch looks at gradients of tensors between its graphs and hides its own warning
# of it, but not where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", ["t_d32", "b_gnn"])
def test_compiled(name: str, fill_weights: Fill, make_batch: MakeBatch) -> None:
    torch.compiler.reset()
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "depth_rel": 2, "n_rel": 1}
    model = fill_weights(build_model(name, **{**REDUCED, **sizes}))
    compiled = torch.compile(model)
    for lengths in ([13, 7, 2], [31, 1, 5, 17]):
        batch = make_batch(lengths)
        found = compiled(batch)
        assert deviation(found.detach(), predict(model, batch)) < 1e-4
    model.zero_grad()
    found.pow(2).sum().backward()
    compiled_gradients = {
        n: p.grad for n, p in model.named_parameters() if p.grad is not None
    }
    for parameter, gradient in gradients(model, batch).items():
        found_gradient = compiled_gradients[parameter]
        assert table_deviation(found_gradient, gradient) < 1e-4, parameter


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", ["t_d32", "b_gnn"])
def test_new_lengths_compile_nothing_anew(
    name: str, grad: bool, make_batch: MakeBatch
) -> None:
    """One graph, made once, whatever number of events of whatever lengths comes."""
    torch.compiler.reset()
    num_graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        nonlocal num_graphs
        num_graphs += 1
        return graph.forward

    model = build_model(name, **REDUCED)
    compiled = torch.compile(model, backend=count, dynamic=True)
    with torch.set_grad_enabled(grad):
        for lengths in ([13, 7, 2], [31, 5], [11, 3, 1, 8, 40], [5, 5], [64, 2, 9]):
            batch = make_batch(lengths)
            assert deviation(compiled(batch).detach(), predict(model, batch)) < 1e-4
    assert num_graphs == 1


class TestExtraFeatures:
    @pytest.mark.parametrize("model_class", [DeepIce, DeepIceGNN])
    def test_are_read(
        self,
        model_class: type[DeepIce],
        make_batch: MakeBatch,
        fill_weights: Fill,
    ) -> None:
        plain = make_batch([5, 7])
        names = (*plain.names, "tot")
        model = fill_weights(model_class(**REDUCED, extra_features=("tot",)))
        batch = make_batch([5, 7], names=names)
        check_forward_and_backward(model, batch)
        features = batch.features.clone()
        features[0, -1] += 0.1
        changed = predict(model, replace(batch, features=features))
        before = predict(model, batch)
        assert not torch.allclose(changed[0], before[0], rtol=1e-3)
        assert deviation(changed[1:], before[1:]) < TOLERANCE
        with pytest.raises(ValueError, match="no feature 'tot'"):
            model(plain)
