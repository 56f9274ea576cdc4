"""Puts a run's model into the package: python tools/ship_weights.py RUN NAME.

NAME is the model's and a tag that says data and recipe, as `t_sim.simulated`. Weights
are rounded to float16, which halves the file; `load_pretrained` gives float32 again.
The card, NAME.md beside the file, is written by hand from benchmarks of the shipped
weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from graphnet_icecube2nd import list_models, load_model, save_model
from graphnet_icecube2nd.models.pretrained import FOLDER

LARGEST = 4_000_000  # bytes


def main() -> None:
    """Round, write, see that it is small enough."""
    run, name = Path(sys.argv[1]), sys.argv[2]
    if name.split(".")[0] not in list_models() or "." not in name:
        sys.exit(f"{name} must be a model's name and a tag, as t_sim.simulated")
    model = load_model(run / "model.safetensors")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    save_model(model.to(torch.float16), path)
    size = path.stat().st_size
    if size > LARGEST:
        path.unlink()
        sys.exit(f"{path} would have {size:,} bytes; at most {LARGEST:,} are allowed")
    print(f"{path}: {size:,} bytes")


if __name__ == "__main__":
    main()
