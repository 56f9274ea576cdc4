"""Amount of light that particles make, and its arrival at DOMs.

Simulation and likelihood both use this module, so the likelihood is that of the
simulation but for the showers along muons: the likelihood takes the mean loss.
Simplifications: a cascade shines from one point, all light has one wavelength, and the
medium has horizontal layers. In a clear medium, where light is absorbed before it is
scattered (water), its amount is that of direct light. Shape letters: `...` any shapes
that broadcast, such as hypotheses x DOMs; a last axis of 3 is x, y, z; N rows of the
table of the medium.

Sources of the numbers: light of muons and cascades L. Raedel and C. Wiebusch,
Astropart. Phys. 38 (2012) 53 (arXiv:1206.5530) and 44 (2013) 102 (arXiv:1210.5140);
energy loss D. Chirkin and W. Rhode, hep-ph/0407075; delays AMANDA, Nucl. Instrum.
Meth. A 524 (2004) 169, after D. Pandel's diploma thesis (Humboldt University Berlin,
1996); ice arXiv:1301.5361.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.detector.geometry import depth_to_z
from graphnet_icecube2nd.detector.ice import ICE, SUBSTANCES, IceModel, Substance
from graphnet_icecube2nd.simulation.rows import Array, Rows

# m2, mean over all sides: 0.055 m2 of photocathode (arXiv:1002.2442), of which the
# average side shows 45%, at 12% efficiency over the Cherenkov spectrum. An estimate.
EFFECTIVE_AREA = 0.003

# Losses per metre of ice; `Medium.stopping` is the density over that of ice.
MUON_LOSS = 0.2375  # GeV/m, a of dE/dx = a + b E: 0.259 GeV/mwe at 0.917 g/cm3
MUON_RADIATIVE_LOSS = 3.33e-4  # 1/m, b: 0.363e-3 /mwe
RADIATION_LENGTH = 0.391  # m, 36.08 g/cm2
CASCADE_LENGTH = 5.21  # m/GeV: length of a bare muon with the light of 1 GeV of shower

TRACK_DELAY = (557.0, 33.3)  # tau [ns] and lambda [m] of Pandel's function, AMANDA
CASCADE_DELAY = (450.0, 47.0)  # the same for light from a point, AMANDA
# Those lengths are averages in AMANDA's ice; elsewhere they scale with the scattering
# length. This is its mean (of coefficients) from 1500 to 2000 m in IceCube's table, m.
AMANDA_SCATTERING = 23.5
SIDE_SENSITIVITY = 0.75  # a DOM looks down: 1 + 0.75 cos(angle) for direct light
SHORTEST_DISTANCE = 1.0  # m; light at smaller distances is that at this one

# Angular distribution of a cascade's light: exp(-B |cos - cos_Cherenkov|**A). Its cusp
# is smoothed by 0.05, as by scattering and the length of a shower.
_CASCADE_A, _CASCADE_B, _CASCADE_SPREAD = 0.39, 2.61, 0.05
_STEP = 2.0  # m, step of the table of integrals; the ice's own rows are 10 m apart


@dataclass(frozen=True, kw_only=True, eq=False)
class LightPath:
    """Effect of the medium between source and DOM on light."""

    scattering: Array  # (...) mean effective scattering length, m
    absorption: Array  # (...) mean absorption length, m
    is_clear: bool = False  # whether light is direct light

    @property
    def propagation(self) -> Array:
        """Fading length, m: of diffuse light sqrt(absorption * scattering / 3)."""
        if self.is_clear:
            return self.absorption
        return np.sqrt(self.absorption * self.scattering / 3.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Optics(Rows):
    """Changes of medium and modules, (...) each, for systematic uncertainties."""

    scattering: Array  # factor of the scattering length
    absorption: Array  # factor of the absorption length
    efficiency: Array  # factor of the modules' efficiency
    side: Array  # sensitivity to light from below, by the ice in the holes

    def change(self, path: LightPath) -> LightPath:
        """Return a light path with these lengths."""
        if self is NOMINAL:
            return path
        return LightPath(
            scattering=path.scattering * self.scattering,
            absorption=path.absorption * self.absorption,
            is_clear=path.is_clear,
        )

    def sensitivity(self, cosine: Array, direct: Array | float) -> Array:
        """Return the modules' sensitivity to light that rises with a cosine, (...)."""
        if self is NOMINAL:
            return 1.0 + SIDE_SENSITIVITY * cosine * direct
        result: Array = self.efficiency * (1.0 + self.side * cosine * direct)
        return result


_ONE = np.ones(())
NOMINAL = Optics(
    scattering=_ONE, absorption=_ONE, efficiency=_ONE, side=_ONE * SIDE_SENSITIVITY
)


class Medium:
    """An ice model with averages between two depths.

    The lengths of `IceModel` are those at 400 nm of arXiv:1301.5361, with the effective
    scattering length; they are used for all light. Coefficients (inverse lengths) are
    averaged along the straight line, which in horizontal layers is their mean over the
    depths in between.

    Args:
        ice: Scattering and absorption lengths.
        substance: Refractive indices and density; default: those of ice.

    Attributes:
        speed: Speed of light, m/ns.
        cosine: Cosine of the Cherenkov angle; `sine` and `tangent` likewise.
        light_per_metre: Light of a bare muon, p.e. m (see `line_light`).
        stopping: Density over that of ice: losses of muons per metre.
        is_clear: Whether light is absorbed before it is scattered, at all depths.
        profile_mean: Mean of `profile` over all directions.
        forward: Mean cosine of a cascade's light.
    """

    def __init__(self, ice: IceModel, substance: Substance = SUBSTANCES[ICE]) -> None:
        self.phase_index = substance.phase_index
        self.speed = SPEED_OF_LIGHT / substance.group_index
        self.cosine = 1.0 / substance.phase_index
        self.sine = (1.0 - self.cosine**2) ** 0.5
        self.tangent = self.sine / self.cosine
        # Frank and Tamm, 300 to 600 nm: photons per metre of a particle of charge 1.
        photons = 2 * np.pi / 137.036 * self.sine**2 * (1 / 300 - 1 / 600) * 1e9
        self.light_per_metre = photons * EFFECTIVE_AREA
        self.stopping = substance.density / SUBSTANCES[ICE].density
        lengths_N2 = ice.scattering_length_N, ice.absorption_length_N
        self.is_clear = bool(lengths_N2[0].min() > lengths_N2[1].max())
        cosines = np.linspace(-1.0, 1.0, 20001)
        profile = self.profile(cosines)
        self.profile_mean = float(np.mean(profile))
        self.forward = float(np.mean(profile * cosines)) / self.profile_mean
        top, bottom = (float(depth_to_z(ice.depth_N[row])) for row in (0, -1))
        num = max(2, round((top - bottom) / _STEP) + 1)
        z_N = np.linspace(bottom, top, num)
        coefficient_N2 = 1.0 / ice.lengths_at(torch.from_numpy(z_N)).numpy()
        self._bottom, self._step = bottom, (top - bottom) / (num - 1)
        self._last = num - 2
        # Integral of each coefficient from the bottom of the table to its rows.
        middle_N2 = 0.5 * (coefficient_N2[1:] + coefficient_N2[:-1]) * self._step
        integral_N2 = np.vstack([np.zeros((1, 2)), np.cumsum(middle_N2, axis=0)])
        slope_N2 = np.diff(integral_N2, axis=0)
        self._rows = {
            dtype: [
                (integral.astype(dtype), slope.astype(dtype))
                for integral, slope in zip(integral_N2.T, slope_N2.T, strict=True)
            ]
            for dtype in (np.dtype(np.float32), np.dtype(np.float64))
        }

    def between(self, source_z: Array, dom_z: Array) -> LightPath:
        """Return the medium between two heights (...) [m], which may be equal."""
        # Heights differ by at least a step, so equal ones give the local medium.
        middle, half = 0.5 * (source_z + dom_z), 0.5 * np.abs(dom_z - source_z)
        half = np.maximum(half, _STEP)
        low, high = self._place(middle - half), self._place(middle + half)
        span = 2.0 * half
        scattering, absorption = (
            span / (self._at(high, column) - self._at(low, column)) for column in (0, 1)
        )
        return LightPath(
            scattering=scattering, absorption=absorption, is_clear=self.is_clear
        )

    def profile(self, cosine: Array) -> Array:
        """Return the light of a cascade at an angle to its flight, (...)."""
        square = (cosine - self.cosine) ** 2 + _CASCADE_SPREAD**2
        return np.exp(-_CASCADE_B * square ** (0.5 * _CASCADE_A))

    def _place(self, z: Array) -> tuple[NDArray[np.int32], Array]:
        """Return the row of the table below each z, and the distance to it in rows."""
        steps = (z - self._bottom) * (1.0 / self._step)
        row = np.minimum(np.maximum(steps.astype(np.int32), 0), self._last)
        return row, steps - row.astype(steps.dtype)

    def _at(self, place: tuple[NDArray[np.int32], Array], column: int) -> Array:
        """Return the integral; outside the table the coefficient at its edge holds."""
        row, steps = place
        integral, slope = self._rows[steps.dtype][column]
        value: Array = slope.take(row) * steps
        value += integral.take(row)
        return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrival(Rows):
    """Light of one source at DOMs; delays follow Pandel's gamma distribution."""

    mean: Array  # (...) expected photoelectrons of a DOM with rde 1
    time: Array  # (...) arrival time of unscattered light, ns
    shape: Array  # (...) xi of the delays after `time`, related to scatterings
    rate: Array  # (...) rho of the delays, 1/ns
    # Flight of unscattered light, times its share of the light; (..., 3), or (..., 0)
    # if it was not asked for.
    flight: Array


def muon_light(energy: Array, radiative: Array | float = MUON_RADIATIVE_LOSS) -> Array:
    """Return the light of a muon in units of a bare muon, (...), at energies in GeV.

    It includes secondaries below 500 MeV (1.188 + 0.0206 ln E) and the showers of its
    radiative loss [1/m], spread evenly.
    """
    energy = np.maximum(energy, 0.5)
    light: Array = CASCADE_LENGTH * radiative * energy
    light += 1.188 + 0.0206 * np.log(energy)
    return light


def muon_range(energy: Array, radiative: float = MUON_RADIATIVE_LOSS) -> Array:
    """Return the range of muons of energy (...) [GeV], m; radiative loss in 1/m."""
    result: Array = np.log1p(radiative * energy / MUON_LOSS) / radiative
    return result


def muon_energy_after(
    energy: Array, length: Array, radiative: Array | float = MUON_RADIATIVE_LOSS
) -> Array:
    """Return the energy [GeV] after a length [m]; 0 if the muon has stopped.

    dE/dx = a + b E, without fluctuations; `radiative` is b, 1/m.
    """
    critical = MUON_LOSS / radiative
    left: Array = (energy + critical) * np.exp(-radiative * length) - critical
    return np.maximum(left, 0.0)


def shower_depth(energy: Array) -> Array:
    """Return the mean distance of a shower's light from its start, (...) m.

    The mean of the longitudinal profile of electrons, a gamma distribution (arXiv:
    1210.5140): 1.2 m at 1 GeV, 3.9 m at 1 TeV, 6.6 m at 1 PeV. The elongation by the
    Landau-Pomeranchuk-Migdal effect above 10 PeV is left out.
    """
    steps = 2.01849 + 1.45469 * np.log10(np.maximum(energy, 1.0))
    result: Array = RADIATION_LENGTH / 0.63207 * steps
    return result


def shower_light(energy: Array) -> Array:
    """Return the electromagnetic energy [GeV] with the light of a hadronic shower.

    1 - (E / 0.399)**-0.130 (1 - 0.467), the parameters of arXiv:1210.5140.
    """
    fraction = 1.0 - np.maximum(energy / 0.399, 1.0) ** -0.130 * (1.0 - 0.467)
    return energy * fraction


def point_light(distance: Array, path: LightPath) -> Array:
    """Return the fluence of a point of light, per photon, 1/m2.

    In a clear medium it is exp(-d / absorption) / (4 pi d2). Else it is 1 / (4 pi d2)
    nearby and the diffusion limit far away, 3 / (4 pi scattering d) times exp(-d /
    propagation); a hyperbolic tangent joins the two.
    """
    faded = np.exp(-distance / path.propagation)
    if path.is_clear:
        return faded / (4 * np.pi) / distance**2
    length = _diffusion(path)
    return faded / (4 * np.pi) / (length * distance * np.tanh(distance / length))


def line_light(distance: Array, path: LightPath, sine: float) -> Array:
    """Return the fluence beside a long track, per photon per metre of it, 1/m.

    In a clear medium it is exp(-d / (sin(Cherenkov) absorption)) / (2 pi sin(Cherenkov)
    d), of light that has flown d / sin(Cherenkov). Else it is 1 / (2 pi sin(Cherenkov)
    d) nearby and the diffuse light of all points of the track far away (a modified
    Bessel function, for d above `propagation`); a hyperbolic tangent joins the two.

    Args:
        distance: Distances d from the track (...), m.
        path: The medium.
        sine: Sine of the Cherenkov angle.
    """
    if path.is_clear:
        faded = np.exp(-distance / (sine * path.propagation))
        return faded / (2 * np.pi * sine) / distance
    length = _diffusion(path)
    root = length / sine * np.sqrt(2 / (np.pi * path.propagation))
    faded = np.exp(-distance / path.propagation)
    ratio = np.sqrt(distance) / root
    return faded / (2 * np.pi * sine) / (root * np.sqrt(distance) * np.tanh(ratio))


def track_arrival(
    *,
    start: Array,  # (..., 3) start of the track, m
    direction: Array,  # (..., 3) flight direction, unit vector
    time: Array,  # (...) time at the start, ns
    length: Array,  # (...) m, 0 or above
    energy: Array,  # (...) energy of each muon at the start, GeV
    muons: Array,  # (...) number of parallel muons; a bundle has more than one
    dom: Array,  # (..., 3) m
    medium: Medium,
    # Energy of a muon [GeV] after distances (...) [m]; default: the mean loss.
    energy_after: Callable[[Array], Array] | None = None,
    radiative: Array | float = MUON_RADIATIVE_LOSS,  # (...) 1/m, of the even light
    optics: Optics = NOMINAL,
    with_flight: bool = False,
) -> Arrival:
    """Return the light of muon tracks.

    Unscattered light is emitted at the Cherenkov angle; if that point is not on the
    track, it is emitted at the nearer end.
    """
    step = dom - start
    along = _dot(step, direction)
    across = _norm_of_cross(step, direction)
    leaves = along - across / medium.tangent
    emission = np.minimum(np.maximum(leaves, 0.0), length)
    distance = np.sqrt(across**2 + (along - emission) ** 2)
    distance = np.maximum(distance, SHORTEST_DISTANCE)
    rise = step[..., 2] - emission * direction[..., 2]  # from the point of emission
    path = optics.change(medium.between(dom[..., 2] - rise, dom[..., 2]))
    beside = distance * medium.sine  # `across`, if the point is on the track
    direct = _direct(beside, path)
    # Diffuse light comes from the nearest point of the track, at any angle.
    past = along - np.minimum(np.maximum(along, 0.0), length)
    nearest = np.maximum(np.sqrt(across**2 + past**2), SHORTEST_DISTANCE)
    nearest = direct * beside + (1.0 - direct) * nearest
    # More diffuse light is emitted closer to the DOM, and from a longer part.
    centre = along - direct * across / medium.tangent
    width = 5.0 + 0.5 * (1.0 - direct) * nearest
    # Smooth ends; the total light between them does not change.
    within = _logistic(centre / width) + _logistic((length - centre) / width) - 1.0
    within = np.maximum(within, 0.0)
    if energy_after is None:
        left = muon_energy_after(energy, medium.stopping * emission, radiative)
    else:
        left = energy_after(emission)
    bright = muons * muon_light(left, radiative)
    cosine = rise / distance
    mean = medium.light_per_metre * bright * line_light(nearest, path, medium.sine)
    mean = mean * within
    ray = None
    if with_flight:
        ray = (step - emission[..., None] * direction) / distance[..., None]
    return _arrival(
        mean=mean * optics.sensitivity(cosine, direct),
        time=time + emission / SPEED_OF_LIGHT + distance / medium.speed,
        distance=distance if path.is_clear else beside,
        cosine=cosine,
        path=path,
        delay=TRACK_DELAY,
        speed=medium.speed,
        ray=ray,
    )


def cascade_arrival(
    *,
    position: Array,  # (..., 3) m
    direction: Array,  # (..., 3) flight direction of the cascade, unit vector
    time: Array,  # (...) ns
    energy: Array,  # (...) electromagnetic energy with the same light, GeV
    dom: Array,  # (..., 3) m
    medium: Medium,
    optics: Optics = NOMINAL,
    with_flight: bool = False,
) -> Arrival:
    """Return the light of cascades, which shine from their `shower_depth`."""
    depth = shower_depth(energy) / medium.stopping
    position = position + depth[..., None] * direction
    step = dom - position
    distance = np.maximum(np.sqrt(_dot(step, step)), SHORTEST_DISTANCE)
    path = optics.change(medium.between(position[..., 2], dom[..., 2]))
    direct = _direct(distance, path)
    forward = _dot(step, direction) / distance
    # Diffuse light seems to come from a point one scattering length ahead.
    dipole = medium.forward * path.scattering * (1 / path.propagation + 1 / distance)
    diffuse = 1.0 + np.minimum(dipole, 0.9) * forward
    side = direct * medium.profile(forward) / medium.profile_mean
    side = side + (1.0 - direct) * diffuse
    cosine = step[..., 2] / distance
    bright = medium.light_per_metre * (CASCADE_LENGTH / medium.stopping) * energy
    mean = bright * point_light(distance, path) * side
    return _arrival(
        mean=mean * optics.sensitivity(cosine, direct),
        time=time + depth / SPEED_OF_LIGHT + distance / medium.speed,
        distance=distance,
        cosine=cosine,
        path=path,
        delay=CASCADE_DELAY,
        speed=medium.speed,
        ray=step / distance[..., None] if with_flight else None,
    )


def _arrival(
    *,
    mean: Array,
    time: Array,
    distance: Array,
    cosine: Array,
    path: LightPath,
    delay: tuple[float, float],
    speed: float,  # m/ns, of light
    ray: Array | None,  # (..., 3) flight of unscattered light
) -> Arrival:
    """Add Pandel's parameters: AMANDA's effective distance and delays.

    In a clear medium the distance is the true one, so that light without scattering
    has no delay, and tau is proportional to the scattering length, as lambda is.
    """
    tau, scattering = delay
    slow: Array | float = 1.0 / tau
    if path.is_clear:
        effective = distance
        slow = 1.0 / (tau / AMANDA_SCATTERING * path.scattering)
    else:
        effective = 3.1 + cosine * (4.6 * cosine - 3.9) + 0.84 * distance
    flight = np.empty((*np.shape(mean), 0), np.float32)
    if ray is not None:
        flight = ray * np.exp(-distance / path.scattering)[..., None]
    return Arrival(
        mean=mean,
        time=time,
        shape=effective / (scattering / AMANDA_SCATTERING * path.scattering),
        rate=slow + speed / path.absorption,
        flight=flight,
    )


def _direct(distance: Array, path: LightPath) -> Array | float:
    """Return the share of the amount of light that is direct light's, (...)."""
    if path.is_clear:
        return 1.0
    return np.exp(-distance / path.scattering)


def _diffusion(path: LightPath) -> Array:
    """Return the distance from which light of a point is diffuse, m."""
    return path.scattering / 3.0 * np.exp(path.scattering / path.absorption)


def _dot(a: Array, b: Array) -> Array:
    product: Array = np.multiply(a[..., 0], b[..., 0])
    product = product + a[..., 1] * b[..., 1]
    product += a[..., 2] * b[..., 2]
    return product


def _norm_of_cross(a: Array, b: Array) -> Array:
    # More precise than the root of |a|2 - (a . b)2 if a is nearly along b.
    x = a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1]
    y = a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2]
    z = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return np.sqrt(x * x + y * y + z * z)


def _logistic(value: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * value))
