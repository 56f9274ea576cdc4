"""Fixtures that tests of every folder share."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray
from torch import Tensor, nn

from graphnet_icecube2nd import (
    FEATURE_NAMES,
    DeepIce,
    DeepIceGNN,
    PackedBatch,
    build_model,
    load_competition_weights,
    load_model,
)
from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, Stage
from graphnet_icecube2nd.training.trainer import TrainerConfig

GOLDEN = Path(__file__).parent / "golden"

# Tests never judge by the clock: a machine may be busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data files, which are not part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("ICECUBE2ND_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"no data files: {folder}/data is absent; set ICECUBE2ND_SHARED")
    return folder


@pytest.fixture
def with_graphnet() -> None:
    """Skips a test where GraphNeT is missing."""
    pytest.importorskip(
        "graphnet.models",
        reason="GraphNeT is not installed; README.md says how to have it",
        exc_type=ImportError,
    )


@pytest.fixture
def notices(logging_of_the_package: None) -> list[str]:
    """What the package logs of its progress during a test."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("graphnet_icecube2nd")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return texts


@pytest.fixture(autouse=True)
def logging_of_the_package() -> Iterator[None]:
    """Leave the package's logger as it was: a command makes it print from then on."""
    logger = logging.getLogger("graphnet_icecube2nd")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    """Give every test the same random numbers, whichever tests run before it."""
    torch.manual_seed(0)


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are written blank: drawing takes nearly all the time of a report."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def save_blank(figure: Figure, *arguments: Any, **options: Any) -> None:
        save(Figure(figsize=(1, 1)), *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", save_blank)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    file: str,
    line: int,
    *_: object,
    **__: object,
) -> None:
    """Print a warning as an interpreter does."""
    print(warnings.formatwarning(message, category, file, line), file=sys.stderr)


@pytest.fixture
def run_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_main(main, *arguments)`: a program as a user starts it, in this process.

    A process of its own would spend seconds on imports. Its folder is `tmp_path`.
    """

    def call(
        main: Callable[[], object], *arguments: object
    ) -> subprocess.CompletedProcess[str]:
        words = ["program", *map(str, arguments)]
        output, errors = io.StringIO(), io.StringIO()
        code: object = 0
        with (
            monkeypatch.context() as patch,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", words)
            patch.setattr(warnings, "formatwarning", warnings.formatwarning)
            patch.setattr(warnings, "showwarning", show_warning)  # not pytest's
            # A fresh interpreter shows warnings, but not those for developers.
            warnings.resetwarnings()
            for category in (
                *(DeprecationWarning, PendingDeprecationWarning),
                *(ImportWarning, ResourceWarning),
            ):
                warnings.simplefilter("ignore", category)
            try:
                main()
            except SystemExit as error:
                code = error.code
                if isinstance(code, str):
                    print(code, file=sys.stderr)
                    code = 1
        return subprocess.CompletedProcess(
            words, int(code or 0), output.getvalue(), errors.getvalue()
        )

    return call


def draw_weight(name: str, shape: Sequence[int]) -> Tensor:
    """Draw a parameter from its own name; the rule of tests/golden."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    numbers = generator.standard_normal(tuple(shape))
    if len(shape) >= 2:
        numbers = numbers / np.sqrt(shape[-1])
    elif name.endswith(("weight", "gamma_1", "gamma_2", "scale")):
        numbers = 1 + 0.1 * numbers
    else:
        numbers = 0.1 * numbers
    return torch.from_numpy(numbers.astype(np.float32))


def fill(model: nn.Module) -> nn.Module:
    """Give every parameter a size at which attention is far from uniform."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(draw_weight(name, parameter.shape))
    return model


def pack(
    lengths: Sequence[int],
    seed: int = 0,
    names: Sequence[str] = FEATURE_NAMES,
    n_pulses: Sequence[int] | None = None,
) -> PackedBatch:
    """Make a batch of random events; no two pulses coincide or are equally far."""
    generator = torch.Generator().manual_seed(seed)
    features = 0.3 * torch.randn(sum(lengths), len(names), generator=generator)
    for flag in ("auxiliary", "qe"):
        if flag in names:
            column = features[:, list(names).index(flag)]
            column.copy_(column > 0)
    if "time" in names:
        features[:, list(names).index("time")] *= 0.2
    counts = torch.tensor(lengths if n_pulses is None else n_pulses)
    events = features.split(list(lengths))
    return PackedBatch.from_events(events, n_pulses=counts, names=names)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A reference: what the published code was given and what it gave."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The weights under their published names, drawn anew at each call."""
        shapes = self.meta["state_dict"].items()
        return {name: draw_weight(name, shape) for name, shape in shapes}

    def batch(self) -> PackedBatch:
        """The input, packed."""
        keep_BL, arrays = self.arrays["in_mask"], self.arrays
        columns = [arrays["in_pos"], arrays["in_ice_properties"]]
        for column in ("time", "charge", "auxiliary", "qe"):
            columns.append(arrays[f"in_{column}"][..., None])
        position, ice, time, charge, auxiliary, qe = columns
        joined = (position, time, charge, auxiliary, qe, ice)
        features = np.concatenate(joined, axis=-1, dtype=np.float32)[keep_BL]
        return PackedBatch(
            features=torch.from_numpy(features),
            offsets=torch.from_numpy(np.append(0, keep_BL.sum(1).cumsum())),
            n_pulses=torch.from_numpy(arrays["in_L0"]),
        )

    def empty_model(self) -> DeepIce:
        """Our model of the same sizes, with weights of its own."""
        if "small" not in self.name:
            return build_model(self.name)
        if self.meta["class"] == "DeepIceModel":
            return DeepIce(**self.meta["kwargs"])
        graph = {"n_rel": 1, "knn_features": 3}
        if self.meta["class"].endswith("V23"):
            graph = {"n_rel": 4, "knn_features": 4}
        return DeepIceGNN(**self.meta["kwargs"], **graph)

    def model(self) -> DeepIce:
        """Our model with the weights of the reference, in evaluation mode."""
        model = self.empty_model()
        load_competition_weights(model, self.state_dict)
        return model.eval()


def read_golden(name: str) -> Golden:
    meta = json.loads((GOLDEN / f"{name}.json").read_text())
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return Golden(name=name, meta=meta, arrays=dict(arrays))


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., PackedBatch]:
    """`make_batch(lengths, seed=0, names=FEATURE_NAMES, n_pulses=None)`."""
    return pack


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """`golden(name)`: a reference with its meta, arrays, batch() and model()."""
    return read_golden


@pytest.fixture(scope="session")
def drawn_weight() -> Callable[[str, Sequence[int]], Tensor]:
    """`drawn_weight(name, shape)`: the weights rule of tests/golden."""
    return draw_weight


@pytest.fixture(scope="session")
def fill_weights() -> Callable[[nn.Module], nn.Module]:
    """`fill_weights(model)`: weights that make attention anything but uniform."""
    return fill


def kaggle_pulses(lengths: Sequence[int], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random pulses with the competition's columns, in the order of time."""
    generator = np.random.default_rng(seed)
    num_pulses = sum(lengths)
    event = np.repeat(np.arange(len(lengths)), lengths)
    time = generator.integers(5_000, 30_000, num_pulses)
    return {
        "sensor_id": generator.integers(0, 5160, num_pulses).astype(np.int16),
        "time": time[np.lexsort((time, event))],
        "charge": np.round(generator.gamma(2.0, 20.0, num_pulses) + 1) / 40,
        "auxiliary": generator.random(num_pulses) < 0.7,
    }


def write_kaggle_folder(
    folder: Path, batches: dict[int, Sequence[int]], which: str = "train"
) -> Path:
    """Write batches of random events as the competition's files.

    Args:
        folder: Where to.
        batches: Pulses of each event, by the number of the batch.
        which: `train`, or `test`, which has no angles.
    """
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (folder / which).mkdir(parents=True, exist_ok=True)
    metas = []
    for batch, lengths in batches.items():
        generator = np.random.default_rng(1000 + batch)
        event_id = 1000 * batch + 3 * np.arange(len(lengths))
        columns = kaggle_pulses(lengths, seed=batch)
        columns["event_id"] = np.repeat(event_id, lengths)
        pq.write_table(pa.table(columns), folder / which / f"batch_{batch}.parquet")
        stop = np.cumsum(lengths, dtype=np.int64)
        meta = {
            "batch_id": np.full(len(lengths), batch),
            "event_id": event_id,
            "first_pulse_index": stop - lengths,
            "last_pulse_index": stop - 1,
        }
        if which == "train":
            meta["azimuth"] = generator.uniform(0, 2 * np.pi, len(lengths))
            meta["zenith"] = np.arccos(generator.uniform(-1, 1, len(lengths)))
        metas.append(pa.table(meta))
    pq.write_table(pa.concat_tables(metas), folder / f"{which}_meta.parquet")
    return folder


@pytest.fixture(scope="session")
def make_kaggle_folder() -> Callable[..., Path]:
    """`make_kaggle_folder(folder, {batch: lengths}, which="train")`."""
    return write_kaggle_folder


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Any]:
    """`make_store({batch: lengths}, **options of prepare)`: an EventStore of them."""
    pytest.importorskip("pyarrow")

    def make(batches: dict[int, Sequence[int]], **options: Any) -> Any:
        from graphnet_icecube2nd import EventStore, prepare

        files = write_kaggle_folder(tmp_path / "files", batches)
        out = tmp_path / "store"
        prepare(files, out, **{"workers": 1, **options})
        return EventStore(out)

    return make


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An EventStore of 256 simulated events."""
    pytest.importorskip("pyarrow")
    from graphnet_icecube2nd import EventStore, simulate

    folder = tmp_path_factory.mktemp("simulated") / "store"
    simulate(folder, num_events=256, seed=21, workers=1)
    return EventStore(folder)


SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """Two stages of two sub-epochs, three optimiser steps and more each."""
    first = Stage(
        lr_max=2e-3, batch_size=16, max_pulses=32, accumulate_events=32, div_final=5
    )
    second = replace(first, lr_max=5e-4, ema=True, ema_decay=0.8, loss="combined")
    return Recipe(
        name="tiny",
        model="t_sim",
        model_kwargs=SIZES,
        stages=(first, second),
        data=DataConfig(num_sub_epochs=2, validation_fraction=0.2),
    )


@pytest.fixture(scope="session")
def quiet() -> TrainerConfig:
    """No bar, no plot; a checkpoint after each optimiser step."""
    return TrainerConfig(
        accelerator="cpu", progress=False, plot=False, checkpoint_steps=1
    )


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Path], dict[str, Any]]:
    """`weights_of(run)`: the weights that a run ended with, by name."""
    return lambda run: dict(load_model(run / "model.safetensors").state_dict())
