"""The medium: scattering and absorption length against depth, refractive indices.

Light travels far in clear ice and not far in dusty layers, so the meaning of a pulse
depends on the depth of its DOM. Shape letters: N rows of the table, T pulses or DOMs.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from graphnet_icecube2nd.detector.geometry import Shared, depth_to_z, z_to_depth
from graphnet_icecube2nd.detector.text_table import TextTable

ICE_PROFILES = ("correct", "mirrored")
PUBLISHED_DATUM = 1950.0  # m, depth of z = 0 in the published code
ICE, SEA_WATER, LAKE_WATER = "ice", "water", "lake water"


@dataclass(frozen=True, kw_only=True)
class Substance:
    """Constants of a medium.

    Args:
        phase_index: Refractive index that gives the Cherenkov angle.
        group_index: Refractive index that gives the speed of light.
        density: Density, g/cm3.
    """

    phase_index: float
    group_index: float
    density: float


# Ice at 400 nm: P. B. Price and K. Woschnagg, Astropart. Phys. 15 (2001) 97. Water at
# 460 nm: X. Quan and E. S. Fry, Appl. Opt. 34 (1995) 3477, and 1.4e-5 per atmosphere
# of pressure; the Mediterranean (13.1 C, 38.44 permille of salt, 300 atm) and Lake
# Baikal (3.5 C, no salt, 100 atm).
SUBSTANCES = {
    ICE: Substance(phase_index=1.3195, group_index=1.35634, density=0.92),
    SEA_WATER: Substance(phase_index=1.3507, group_index=1.3806, density=1.03),
    LAKE_WATER: Substance(phase_index=1.3409, group_index=1.3699, density=1.0),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class IceModel(Shared):
    """Optical properties of horizontal ice layers, linear between table rows.

    Outside the table the value at its edge is used, with one UserWarning per IceModel.
    (The published code raises an error there.)

    Args:
        depth_N: Depth below the surface, (N,) float64, m, increasing; at least 2 rows.
        scattering_length_N: Scattering length, (N,) float64, m.
        absorption_length_N: Absorption length, (N,) float64, m.

    Raises:
        ValueError: A shape or type is wrong, a depth does not increase, or a length is
            not positive and finite.
    """

    depth_N: Tensor
    scattering_length_N: Tensor
    absorption_length_N: Tensor
    _has_warned: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (max(2, len(self.depth_N)),)
        for column in ("depth_N", "scattering_length_N", "absorption_length_N"):
            value = getattr(self, column)
            if value.shape != shape or value.dtype != torch.float64:
                raise ValueError(
                    f"ice model: {column} must be {shape} torch.float64, "
                    f"got {tuple(value.shape)} {value.dtype}"
                )
            # This comparison is False for NaN too.
            good = value.diff() > 0 if column == "depth_N" else value > 0
            if not (good.all() and value.isfinite().all()):
                wanted = "increasing" if column == "depth_N" else "above 0"
                raise ValueError(f"ice model: {column} must be finite and {wanted}")

    @classmethod
    @cache
    def icecube(cls) -> IceModel:
        """The ice at IceCube, 110 rows from 1398.4 to 2488.4 m, from the package.

        The table is read once and shared: do not write into its tensors. The head of
        `data/ice.csv` gives its origin and licence.
        """
        resource = files("graphnet_icecube2nd.detector") / "data" / "ice.csv"
        return _from_table(TextTable.read(resource))

    @classmethod
    @cache
    def water(cls) -> IceModel:
        """Clear sea water at all depths: 60 m absorption, 265 m scattering length.

        Absorption and effective scattering length of blue light (473 nm) at the site of
        ANTARES: J. A. Aguilar et al., "Transmission of light in deep sea water at the
        site of the ANTARES neutrino telescope", Astropart. Phys. 23 (2005) 131,
        arXiv:astro-ph/0412126.
        """
        return cls._uniform(scattering=265.0, absorption=60.0)

    @classmethod
    @cache
    def lake_water(cls) -> IceModel:
        """Lake Baikal at all depths: 22 m absorption, 480 m scattering length.

        Absorption and effective scattering length at 488 nm: V. A. Balkanov et al.,
        "In-situ measurements of optical parameters in Lake Baikal with the help of a
        neutrino telescope", Appl. Opt. 38 (1999) 6818, arXiv:astro-ph/9903342.
        """
        return cls._uniform(scattering=480.0, absorption=22.0)

    @classmethod
    def _uniform(cls, *, scattering: float, absorption: float) -> IceModel:
        """Return a medium with the same lengths [m] at all depths."""
        depth_N = torch.tensor([-1e5, 1e5], dtype=torch.float64)
        return cls(
            depth_N=depth_N,
            scattering_length_N=torch.full_like(depth_N, scattering),
            absorption_length_N=torch.full_like(depth_N, absorption),
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> IceModel:
        """Read a table such as the competition's `ice_transparency.txt`.

        The columns `depth`, `scattering_len`, `absorption_len` (or `scattering_length`,
        `absorption_length`), all in m, are separated by blanks, tabs or commas. Depth
        must increase. Lines that begin with # and other columns are ignored.

        Raises:
            ValueError: A column is missing or a value is not allowed; the message
                names file, line and column.
        """
        return _from_table(TextTable.read(Path(path)))

    @property
    def _length_N2(self) -> Tensor:
        return torch.stack([self.scattering_length_N, self.absorption_length_N], 1)

    def lengths_at(self, z_T: Tensor) -> Tensor:
        """Return scattering and absorption length (T, 2) float64 [m] at z (T,) [m]."""
        return self._interpolate(self._length_N2, z_T, "correct")

    def scaled_at(self, z_T: Tensor, profile: str = "correct") -> Tensor:
        """Return scattering and absorption (T, 2) float32 as models read them.

        Robust scaling: (value - median) / (75% quantile - 25% quantile) over the rows
        of IceCube's table, as in the published code with scikit-learn's RobustScaler.
        Other tables are scaled with IceCube's quantiles too, so that a trained model
        sees that the ice differs.

        Args:
            z_T: Height [m] above the detector centre, (T,); NaN gives NaN.
            profile: `correct` reads the table at depth 1948.07 m - z. `mirrored` reads
                it at z + 1950 m, upside down, as in the training of the published
                models. Origin: `ice_transparency` in DrHB/icecube-2nd-place,
                src/dataset.py.

        Raises:
            ValueError: The profile is unknown.
        """
        median_2, spread_2 = _icecube_quantiles()
        scaled_N2 = (self._length_N2 - median_2) / spread_2
        return self._interpolate(scaled_N2, z_T, profile).float()

    def _interpolate(self, value_N2: Tensor, z_T: Tensor, profile: str) -> Tensor:
        """Return values (T, 2) float64 at z, linear between rows, clamped outside."""
        if profile not in ICE_PROFILES:
            raise ValueError(
                f"unknown ice profile {profile!r}; "
                f"choose from {', '.join(ICE_PROFILES)}"
            )
        z_T = z_T.to(self.depth_N)
        depth_T = z_to_depth(z_T) if profile == "correct" else z_T + PUBLISHED_DATUM
        top, bottom = self.depth_N[0], self.depth_N[-1]
        outside_T = (depth_T < top) | (depth_T > bottom)
        if not self._has_warned and outside_T.any():
            self._warn(z_T, outside_T, profile)
        depth_T = depth_T.clamp(top, bottom)
        above_T = torch.searchsorted(self.depth_N, depth_T, right=True) - 1
        above_T = above_T.clamp(0, len(self.depth_N) - 2)
        step_T = self.depth_N[above_T + 1] - self.depth_N[above_T]
        weight_T1 = ((depth_T - self.depth_N[above_T]) / step_T)[..., None]
        return torch.lerp(value_N2[above_T], value_N2[above_T + 1], weight_T1)

    def _warn(self, z_T: Tensor, outside_T: Tensor, profile: str) -> None:
        object.__setattr__(self, "_has_warned", True)
        warnings.warn(
            f"{self._uncovered(z_T, outside_T, profile)}. This warning appears once "
            "per IceModel.",
            UserWarning,
            stacklevel=4,
        )

    def uncovered(self, z_S: Tensor) -> str | None:
        """Return a message about DOMs at z (S,) [m] outside the table, or None."""
        z_S = z_S.to(self.depth_N)
        depth_S = z_to_depth(z_S)
        outside_S = (depth_S < self.depth_N[0]) | (depth_S > self.depth_N[-1])
        return self._uncovered(z_S, outside_S, "correct") if outside_S.any() else None

    def _uncovered(self, z_T: Tensor, outside_T: Tensor, profile: str) -> str:
        edge_2 = self.depth_N[[0, -1]]
        is_correct = profile == "correct"
        edge_2 = depth_to_z(edge_2) if is_correct else edge_2 - PUBLISHED_DATUM
        return (
            f"{int(outside_T.sum())} of {outside_T.numel()} DOMs or pulses lie outside "
            f"the ice table, at z from {float(z_T[outside_T].min()):.2f} to "
            f"{float(z_T[outside_T].max()):.2f} m; the table covers z from "
            f"{float(edge_2.min()):.2f} to {float(edge_2.max()):.2f} m (profile "
            f"{profile!r}) and its edge values are used outside it"
        )


@cache
def _icecube_quantiles() -> tuple[Tensor, Tensor]:
    """Return median (2,) and quartile distance (2,) [m] of the two lengths."""
    quartile = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low_2, median_2, high_2 = IceModel.icecube()._length_N2.quantile(quartile, dim=0)
    return median_2, high_2 - low_2


def _from_table(table: TextTable) -> IceModel:
    def lengths(name: str) -> Tensor:
        # The competition's column name, unless the table has ours.
        column = f"{name}_length"
        column = column if column in table.columns else f"{name}_len"
        return table.numbers(column, "numbers above 0", lambda length: length > 0)

    depth_N = table.numbers("depth")
    stuck_N = (depth_N.diff() <= 0).nonzero().flatten().tolist()
    if stuck_N:
        row = stuck_N[0] + 1
        raise ValueError(
            f"{table.source}, line {table.lines[row]}, column 'depth': got "
            f"{float(depth_N[row])}, allowed: above {float(depth_N[row - 1])}, "
            "the depth in the row before"
        )
    if len(depth_N) < 2:
        raise ValueError(f"{table.source}: an ice table needs at least two rows")
    return IceModel(
        depth_N=depth_N,
        scattering_length_N=lengths("scattering"),
        absorption_length_N=lengths("absorption"),
    )
