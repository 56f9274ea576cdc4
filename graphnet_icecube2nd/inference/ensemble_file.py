"""An ensemble as a folder: files of the members' weights, and a YAML describing them.

    OUT/ensemble.yaml          members, weights, method, options, checksums, origin
    OUT/b_d32.safetensors ...  one file for each member

Checksums of the files are checked before they are used; no file runs code.
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
from graphnet_icecube2nd.models.ensemble_model import EnsembleModel
from graphnet_icecube2nd.models.model import Model
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
    """A member of an ensemble.

    Args:
        name: Name of the member.
        file: Name of its file of `save_model`, beside the YAML.
        weight: Weight in the combination, 0 or more; weights are normalised.
        sha256: Checksum of the file.
        origin: Description of where the member comes from.
    """

    name: str
    file: str
    weight: float
    sha256: str
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EnsembleFile:
    """Content of `ensemble.yaml`.

    Args:
        name: Name of the ensemble.
        members: The members.
        method: Method of the combination, see `combine`.
        options: Reading of events.
        fitted_on: Events that the weights were fitted on; empty if they were given.

    Raises:
        ValueError: There is no member, two have one name, or the method or a weight is
            not allowed.
    """

    name: str
    members: tuple[Member, ...]
    method: str = WEIGHTED
    options: InferenceConfig = field(default_factory=InferenceConfig)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"an ensemble needs members with different names, got {names}"
            )
        check_one_of("method", self.method, METHODS)
        normalised([member.weight for member in self.members], len(names))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write it to a folder as YAML, completely or not at all; return the path."""
        path = Path(folder) / FILE
        write_text(path, dump_yaml(to_plain(self)))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EnsembleFile:
        """Read it from a YAML file or its folder.

        Raises:
            ValueError: The file is not an ensemble's YAML.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        with naming(path, "not an ensemble"):
            return from_plain(cls, read_yaml(path))

    def model(self, folder: str | os.PathLike[str]) -> EnsembleModel:
        """Return the members, which are files of the YAML's folder, as one model.

        Raises:
            ValueError: A file has another checksum, or the members do not fit together.
        """
        models = []
        for member in self.members:
            path = Path(folder) / member.file
            found = sha256_of(path)
            if found != member.sha256:
                raise ValueError(
                    f"{path}: the SHA-256 of member {member.name} must be "
                    f"{member.sha256[:12]}..., found {found[:12]}.... Restore the "
                    "file, or make the ensemble again"
                )
            models.append(load_model(path))
        weights = [member.weight for member in self.members]
        names = [member.name for member in self.members]
        return EnsembleModel(models, weights, self.method, names)


def save_member(
    folder: Path, name: str, model: Model, weight: float, origin: Mapping[str, Any]
) -> Member:
    """Write a model to an ensemble's folder, and return its description."""
    path = folder / f"{name}.safetensors"
    save_model(model, path)
    return Member(
        name=name,
        file=path.name,
        weight=weight,
        sha256=sha256_of(path),
        origin=dict(origin),
    )
