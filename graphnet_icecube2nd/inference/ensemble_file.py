"""An ensemble as a folder: members' weights, and a YAML that says what they are.

    OUT/ensemble.yaml          members, weights, method, options, checksums, origin
    OUT/b_d32.safetensors ...  a member each

Files are checked against their checksums before they are used; nothing runs code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.config import dump_yaml, from_plain, read_yaml, to_plain
from graphnet_icecube2nd.errors import check_one_of, naming
from graphnet_icecube2nd.files import write_text
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.models.together import EnsembleModel
from graphnet_icecube2nd.models.weights import load_model, save_model
from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.tasks.direction.combination import (
    METHODS,
    WEIGHTED,
    normalised,
)

FILE = "ensemble.yaml"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of an ensemble."""

    name: str
    file: str  # its weights, a file of `save_model` beside the YAML
    weight: float  # 0 or more; weights are normalised
    sha256: str  # of the file
    origin: Mapping[str, Any] = field(default_factory=dict)  # where it comes from


@dataclass(frozen=True, kw_only=True)
class EnsembleFile:
    """What `ensemble.yaml` says; members, weights and method have to fit."""

    name: str
    members: tuple[Member, ...]
    method: str = WEIGHTED  # see `combine`
    options: InferenceConfig = field(default_factory=InferenceConfig)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)  # empty: weights given

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"an ensemble has members, each of its own name; got {names}"
            )
        check_one_of("method", self.method, METHODS)
        normalised([member.weight for member in self.members], len(names))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write it as YAML into a folder, whole or not at all."""
        path = Path(folder) / FILE
        write_text(path, dump_yaml(to_plain(self)))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EnsembleFile:
        """Read it from a YAML file or its folder; ValueError if it is none."""
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        with naming(path, "no ensemble"):
            return from_plain(cls, read_yaml(path))

    def model(self, folder: str | os.PathLike[str]) -> EnsembleModel:
        """Return the members, files of the YAML's folder, as one model.

        Raises:
            ValueError: A file is not the one that the YAML means; members that do not
                fit together.
        """
        models = []
        for member in self.members:
            path = Path(folder) / member.file
            found = sha256_of(path)
            if found != member.sha256:
                raise ValueError(
                    f"{path} is not the file of {member.name}: its SHA-256 is "
                    f"{found[:12]}..., not {member.sha256[:12]}..."
                )
            models.append(load_model(path))
        weights = [member.weight for member in self.members]
        names = [member.name for member in self.members]
        return EnsembleModel(models, weights, self.method, names)


def save_member(
    folder: Path, name: str, model: Model, weight: float, origin: Mapping[str, Any]
) -> Member:
    """Write a model into an ensemble's folder, and describe it."""
    path = folder / f"{name}.safetensors"
    save_model(model, path)
    return Member(
        name=name,
        file=path.name,
        weight=weight,
        sha256=sha256_of(path),
        origin=dict(origin),
    )
