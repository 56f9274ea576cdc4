"""A recipe that trains in seconds, and the weights that a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphnet_icecube2nd import load_model
from graphnet_icecube2nd.training.recipe import DataOptions, Recipe, Stage
from graphnet_icecube2nd.training.trainer import Machine

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
        data=DataOptions(num_sub_epochs=2, validation_fraction=0.2),
    )


@pytest.fixture(scope="session")
def quiet() -> Machine:
    """No bar, no plot; a checkpoint after each optimiser step."""
    return Machine(accelerator="cpu", progress=False, plot=False, checkpoint_steps=1)


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Path], dict[str, Any]]:
    """`weights_of(run)`: the weights that a run ended with, by name."""
    return lambda run: dict(load_model(run / "model.safetensors").state_dict())
