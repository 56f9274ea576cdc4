"""The competition's five checkpoints as an ensemble of this package.

All checkpoints are checked, key by key, before anything is written. The ensemble's YAML
has the settings of the published predict.py: weights, clipping, features, and events
cut to 512 pulses.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from graphnet_icecube2nd.files import only_writer
from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile, save_member
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.pretrained import build_model
from graphnet_icecube2nd.models.weights import load_competition_weights
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.tasks.direction.combination import PUBLISHED, PUBLISHED_WEIGHTS
from graphnet_icecube2nd.version import __version__

LOGGER = logging.getLogger(__name__)
# Their file names by our model names.
CHECKPOINTS = {
    "b_d32": "baselineV3_BE_globalrel_d32_0_6ema.pth",
    "b_d64": "baselineV3_BE_globalrel_d64_0_3emaFT_2.pth",
    "b_d32_4rel": "VFTV3_4RELFT_7.pth",
    "s_gnn": "V22FT6_1.pth",
    "b_gnn": "V23FT5_6.pth",
}
DATASET = "https://www.kaggle.com/datasets/drhabib/ice-cube-final-models"
OPTIONS = InferenceConfig(max_pulses=512, batch_size=32, published_features=True)


def import_weights(
    folder: str | os.PathLike[str], out: str | os.PathLike[str]
) -> EnsembleFile:
    """Convert the five published checkpoints to safetensors and an ensemble.

    Args:
        folder: Folder with the `.pth` files, at any depth.
        out: Folder of the ensemble; it is created if necessary.

    Raises:
        FileNotFoundError: Files are missing; the message names each.
        CheckpointError: A checkpoint does not fit its model; nothing is written then.
        ValueError: A file holds more than weights, or another process writes `out`.
    """
    folder, out = Path(folder), Path(out)
    found = {name: sorted(folder.rglob(file)) for name, file in CHECKPOINTS.items()}
    if missing := [CHECKPOINTS[name] for name, paths in found.items() if not paths]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; see {DATASET}")
    sources = {name: paths[0] for name, paths in found.items()}
    for name, path in sources.items():  # all files before the first is written
        _filled(name, path)
        LOGGER.info(f"{path.name}: every key fits {name}")
    with only_writer(out):
        out.mkdir(parents=True, exist_ok=True)
        members = []
        for name, path in sources.items():
            origin = {
                "file": path.name,
                "sha256": sha256_of(path),
                "from": DATASET,
                "imported_by": f"graphnet_icecube2nd {__version__}",
            }
            weight, model = PUBLISHED_WEIGHTS[name], _filled(name, path)
            members.append(save_member(out, name, model, weight, origin))
            LOGGER.info(f"wrote {out / members[-1].file}")
        ensemble = EnsembleFile(
            name="kaggle2023", members=tuple(members), method=PUBLISHED, options=OPTIONS
        )
        ensemble.save(out)
    return ensemble


def _filled(name: str, path: Path) -> Model:
    model = build_model(name)
    with warnings.catch_warnings():  # about features, which the options set
        warnings.simplefilter("ignore", UserWarning)
        load_competition_weights(model, path)
    return model
