"""KM3NeT's offline ROOT files: hits of ORCA and ARCA, and the truth of the primary.

The tree `E` has one entry per event. Its hits are calibrated, with position and
direction of the PMT and a time that counts from the start of a frame of 100 ms, or raw,
without positions or with the raw time as their time, so that a detx or datx file must
calibrate them. The primary is the first of the simulated particles. The definition is
KM3NeT's dataformat, as km3io reads it. Shape letters: T pulses, B events, W weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import (
    AZIMUTH,
    ZENITH,
    X,
    Y,
    Z,
    unit_vector_to_angles,
)
from graphnet_icecube2nd.detector.detx import DetectorFile, read_detector_file
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import (
    PMT_DIRECTIONS,
    TOT,
    TRIGGER_MASK,
    LabelColumns,
    PulseMap,
)
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.readers.columns import (
    KEEP_ALL,
    PathLike,
    Wanted,
    choose_columns,
    list_files,
    settle_pulse_map,
)
from graphnet_icecube2nd.store.readers.source import (
    ROOT,
    SUFFIXES,
    EventChunk,
    Part,
    Source,
    chunk_borders,
)
from graphnet_icecube2nd.store.readers.table_part import NO_DIRECTIONS
from graphnet_icecube2nd.tasks.label import (
    MUON,
    NEUTRINOS,
    PROTON,
    TAU_NEUTRINO,
    TAU_TO_MUON,
    TAU_TOPOLOGY,
    TAU_WITHOUT_MUON,
    flip_to_origin,
)

Columns = dict[str, NDArray[Any]]

TREE = "E/Evt"
PART_PULSES = 2**22
FRAME = 1e8  # ns, length of a frame
FAR = 1e6  # ns; an interaction is nearer to the hits than this
POSITIONS = ("pos_x", "pos_y", "pos_z")
DIRECTIONS = PMT_DIRECTIONS[1]
DOM, CHANNEL = "dom_id", "channel_id"
# Branch and type of each column of the hits.
HITS: dict[str, tuple[str, Any]] = {
    **dict(zip((X, Y, Z), ((name, np.float64) for name in POSITIONS), strict=True)),
    "t": ("t", np.float64),  # ns
    TOT: (TOT, np.int32),  # ns
    **{name: (name, np.float64) for name in DIRECTIONS},
    TRIGGER_MASK: ("trig", np.bool_),
    DOM: (DOM, np.int32),
    CHANNEL: (CHANNEL, np.int16),
    "tdc": ("tdc", np.int64),  # ns, raw time
    "a": ("a", np.float64),  # p.e., amplitude as estimated from the ToT
}
KEPT = (DOM, CHANNEL)  # columns that are kept besides those of the pulse map
PULSE_MAP = PulseMap.km3net(
    extra=(TOT, *DIRECTIONS), extra_scale=(255.0, 1.0, 1.0, 1.0)
)
# Branch of each column of an event that is not truth.
EVENTS = {
    **{name: name for name in ("run_id", "det_id", "frame_index")},
    **{name: name for name in ("trigger_counter", "trigger_mask")},
    **{"utc_seconds": "t/t.fSec", "utc_nanoseconds": "t/t.fNanoSec"},
}
PARTICLE = (*POSITIONS, *DIRECTIONS, "E", "t", "pdgid")
TRACK = (*POSITIONS, *DIRECTIONS, "E", "t", "lik")
JMUON = 0, 99  # first and last stage of reconstruction
W, W2LIST = "w", "w2list"  # lists of weights
NO_TAU = 3  # tau_topology of other events
CURRENTS = 2, 3  # GENIE's codes of charged and neutral current
# PDG codes of CORSIKA's codes, and of KM3NeT's code of a bundle of muons.
CORSIKA = {1: 22, 13: 2112, 14: PROTON}
BUNDLE = {81: MUON}


def km3net_source(
    paths: PathLike | Sequence[PathLike],
    *,
    geometry: PathLike | DetectorGeometry | None = None,
    triggered: bool = False,
    part_pulses: int = PART_PULSES,
    **options: Any,
) -> Source:
    """Open KM3NeT's offline ROOT files as a source.

    Events are numbered by row, over all files. Their columns are those of `EVENTS` and,
    unless `truth` is False: direction of the origin [rad], energy [GeV], PDG code,
    interaction, inelasticity, position [m] and time [ns] of the primary, the weights,
    and the best track of JMuon.

    Args:
        paths: Files or folders.
        geometry: Detx or datx file that gives positions, directions and time offsets
            to raw hits. Calibrated hits are not changed.
        triggered: Whether only hits that took part in the trigger are read.
        part_pulses: Pulses per part.
        **options: Options of `Wanted`.

    Raises:
        ValueError: A file is damaged, has no offline events or no hits, or its hits are
            raw and `geometry` is no detx or datx file.
    """
    wanted = Wanted(**options)
    files = [_look_at(path) for path in list_files(paths, SUFFIXES["km3net"])]
    num_events = sum(len(file.offsets) - 1 for file in files)
    if not any(file.offsets[-1] for file in files):
        raise ValueError(
            f"{_name_of(files)} must have hits, found none in {num_events} events. "
            "Summaries (DST) have no hits; online events (KM3NET_EVENT) become offline "
            "events by Jpp's JConvertEvt"
        )
    raw = [file for file in files if file.lacks]
    given = None if isinstance(geometry, DetectorGeometry) else geometry
    calibration = None if given is None else Path(given)
    if raw and calibration is None:
        raise ValueError(
            f"{raw[0].path}: the hits must have {raw[0].lacks}, found raw hits. Give "
            "the detx or datx file of the detector: --geometry FILE (geometry=...)"
        )
    pulse_map = settle_pulse_map(
        HITS, wanted.read_as(HITS, lambda _: PULSE_MAP), str(files[0].path)
    )
    named = {n: c for n, c in wanted.columns.items() if c and n in (AZIMUTH, ZENITH)}
    pulse_map = replace(
        pulse_map, labels=LabelColumns(**named), only_triggered=triggered
    )
    keep = [wanted.keep] if isinstance(wanted.keep, str) else wanted.keep
    keep = KEEP_ALL if KEEP_ALL in keep else (*KEPT, *keep)
    columns, left_out = choose_columns([*HITS], pulse_map, keep)
    truth = Truth(
        has_primary=wanted.truth is not False and any(f.has_primary for f in files),
        has_tracks=wanted.truth is not False and any(f.has_tracks for f in files),
        weights=tuple(dict.fromkeys(name for f in files for name in f.weights))
        if wanted.truth is not False
        else (),
    )
    tables, notes = [f"pulses: hits of {_name_of(files)}"], list[str]()
    if truth.has_primary:
        tables.append(f"truth: first of mc_trks of {_name_of(files)}")
    else:
        notes.append(NO_DIRECTIONS)
    if triggered:
        notes.append("only hits that took part in the trigger are read")
    if raw:
        notes.append(
            f"the hits of {_name_of(raw)} are raw; {geometry} gives positions, "
            "directions and time offsets"
        )
    parts, num_before = list[Part](), 0
    for file in files:
        ranges = [*chunk_borders(file.offsets, part_pulses)]
        for some in ranges:
            which = f" (events {some.start} to {some.stop - 1})"
            num_pulses = int(file.offsets[some.stop] - file.offsets[some.start])
            part = OfflinePart(
                name=f"{file.path}{which if len(ranges) > 1 else ''}",
                path=file.path,
                events=(some.start, some.stop),
                first_id=num_before + some.start,
                columns=columns,
                truth=truth,
                weights=file.weights,
                is_corsika=file.is_corsika,
                triggered=triggered,
                calibration=calibration if file.lacks else None,
                num_pulses=None if triggered else num_pulses,
            )
            parts.append(part)
        num_before += len(file.offsets) - 1
    return Source(
        kind="km3net",
        pulse_map=pulse_map,
        parts=parts,
        pulse_columns=columns,
        left_out=left_out,
        tables=tuple(tables),
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Columns of all files; a file without them gives NaN.

    Args:
        has_primary: Whether there are those of the primary.
        has_tracks: Whether there are those of the best track of JMuon.
        weights: Names of the weights.
    """

    has_primary: bool
    has_tracks: bool
    weights: tuple[str, ...]


@dataclass(kw_only=True, eq=False)
class OfflinePart(Part):
    """Events of an offline file.

    Args:
        name: Name for messages.
        path: The file.
        events: First event, and the one after the last.
        first_id: Event_id of the first event.
        columns: Columns of the hits to read.
        truth: Columns of truth to read.
        weights: Names of the weights of this file.
        is_corsika: Whether primaries have CORSIKA's codes of particles.
        triggered: Whether only hits of the trigger are read.
        calibration: Detector file of raw hits; None for calibrated hits.
        num_pulses: Number of pulses, None if not known.
    """

    for_threads = True
    name: str
    path: Path
    events: tuple[int, int]
    first_id: int
    columns: tuple[str, ...]
    truth: Truth
    weights: tuple[str, ...]
    is_corsika: bool
    triggered: bool
    calibration: Path | None
    num_pulses: int | None

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Yield chunks of at most `max_pulses` pulses or one event, see `Part`."""
        needed = {*self.columns, TRIGGER_MASK, "t"}
        detector = None
        if self.calibration is not None:
            detector = read_detector_file(self.calibration)
            needed |= {DOM, CHANNEL, "tdc"}
        first, stop = self.events
        with opened(self.path) as file:
            borders = file.offsets[first : stop + 1]
        for some in chunk_borders(borders - borders[0], max_pulses):
            rows = first + some.start, first + some.stop
            offsets = borders[some.start : some.stop + 1] - borders[some.start]
            primary, events = Columns(), Columns()
            with opened(self.path) as file:
                hits = file.hits(needed, *rows)
                for name, branch in EVENTS.items():
                    events[name] = file.numbers(branch, *rows)
                if self.truth.has_primary:
                    primary = file.primary(*rows)
                if self.truth.weights:
                    events |= self._weights(file, *rows)
                if self.truth.has_tracks:
                    events |= _track_columns(file.best_jmuon(*rows))
            if wrong := [c for c, values in hits.items() if len(values) != offsets[-1]]:
                raise ValueError(
                    f"{self.path} is damaged: events {rows[0]} to {rows[1] - 1} must "
                    f"have {offsets[-1]} hits, found {len(hits[wrong[0]])} in "
                    f"{wrong[0]!r}"
                )
            if detector is not None:
                hits |= self._calibrated(detector, hits, offsets, rows[0])
            notes = list[str]()
            if primary:
                events |= self._truth(primary, events, hits["t"], offsets, notes)
            if self.triggered:
                kept_T = hits[TRIGGER_MASK]
                offsets = np.append(0, np.cumsum(kept_T))[offsets]
                hits = {name: values[kept_T] for name, values in hits.items()}
            yield EventChunk(
                columns={name: hits[name] for name in self.columns},
                offsets=offsets,
                event_id=np.arange(*rows) - first + self.first_id,
                truth=events,
                notes=tuple(notes),
            )

    def _weights(self, file: OfflineFile, low: int, high: int) -> Columns:
        """Return the weights of all files, NaN where this one has none."""
        found = {name: np.full(high - low, np.nan) for name in self.truth.weights}
        of_lists = {branch: list[str]() for branch in (W, W2LIST)}
        for name in self.weights:
            of_lists[W2LIST if name.startswith(W2LIST) else W].append(name)
        for branch, names in of_lists.items():
            values_BW = file.lists(branch, low, high, len(names))
            found |= dict(zip(names, values_BW.T, strict=True))
        return found

    def _calibrated(
        self,
        detector: DetectorFile,
        hits: Columns,
        offsets: NDArray[np.int64],
        first: int,
    ) -> Columns:
        """Return positions, directions and times of raw hits.

        Jpp also subtracts a few ns that depend on the ToT; this does not.
        """
        module_T, channel_T = (hits[n].astype(np.int64) for n in (DOM, CHANNEL))
        pmt_T = detector.find_pmts(module_T, channel_T)
        if (pmt_T < 0).any():
            hit = int((pmt_T < 0).argmax())
            event = first + int(np.searchsorted(offsets, hit, side="right")) - 1
            raise ValueError(
                f"{self.path}, event {event} (counted from 0): {self.calibration} must "
                f"have the PMT of each hit, but lacks channel {channel_T[hit]} of "
                f"module {module_T[hit]}. Give the file of this detector"
            )
        time_T = hits["t"] if hits["t"].any() else hits["tdc"]
        return {
            "t": time_T + detector.time_offset_P[pmt_T],
            **dict(zip((X, Y, Z), detector.position_P3[pmt_T].T, strict=True)),
            **dict(zip(DIRECTIONS, detector.direction_P3[pmt_T].T, strict=True)),
        }

    def _truth(
        self,
        primary: Columns,
        weights: Columns,
        time_T: NDArray[np.float64],
        offsets: NDArray[np.int64],
        notes: list[str],
    ) -> Columns:
        """Return the truth of events, NaN where there is none.

        Args:
            primary: Values of the primary, (B,) by name.
            weights: Weights, (B,) by column.
            time_T: Times of the hits, (T,) ns.
            offsets: Borders of the events in the hits, (B + 1,).
            notes: Texts on these events, to which one may be added.
        """
        pdg_B = _pdg_codes(primary["pdgid"], self.is_corsika)
        is_neutrino_B = np.isin(np.abs(pdg_B), NEUTRINOS)
        # Times of particles count from the simulated event, whose time counts from the
        # start of the run; times of hits count from the start of their frame.
        frame_start_B = (primary["frame_index"] - 1) * FRAME
        interaction_B = primary["t"] + primary["mc_t"] - frame_start_B
        full_B = np.diff(offsets) > 0
        first_hit_B = np.full(len(full_B), np.nan)
        first_hit_B[full_B] = np.minimum.reduceat(time_T, offsets[:-1][full_B])
        far_B = np.abs(interaction_B - first_hit_B) > FAR
        if num_far := int((far_B & is_neutrino_B).sum()):
            notes.append(
                f"{self.name}: interaction_time of {num_far} events is NaN, because "
                "mc_t does not fit the times of the hits"
            )
        zenith_B, azimuth_B = _origin(primary)
        cc_B, y_B = (weights.get(f"{W2LIST}_{n}", primary[n]) for n in ("cc", "by"))
        # Older files have these values with the primary.
        cc_B = np.where(np.isnan(cc_B), primary["cc"], cc_B)
        y_B = np.where(np.isnan(y_B), primary["by"], y_B)
        kinds = [is_neutrino_B & (cc_B == code) for code in CURRENTS]
        # An air shower has no interaction in the sea.
        of_neutrino = {
            "inelasticity": y_B,
            "interaction_time": np.where(far_B, np.nan, interaction_B),
            **{f"position_{axis}": primary[f"pos_{axis}"] for axis in (X, Y, Z)},
        }
        return {
            ZENITH: zenith_B,
            AZIMUTH: azimuth_B,
            "energy": primary["E"],
            "pid": pdg_B,
            "interaction_type": np.select(kinds, [1, 2], -1).astype(np.int32),
            TAU_TOPOLOGY: _tau_topology(primary, kinds[0]),
            **{n: np.where(is_neutrino_B, v, np.nan) for n, v in of_neutrino.items()},
        }


class OfflineFile:
    """An open offline file. Methods take the first event and the one after the last."""

    def __init__(self, file: Any) -> None:
        self.file, self.tree = file, file[TREE]
        self.reader = _library("km3io").OfflineReader(file)
        self.ak = _library("awkward")

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Borders of the events in the hits, (B + 1,)."""
        counts = np.asarray(self.reader.n_hits).astype(np.int64)
        return np.append(0, np.cumsum(counts))

    def numbers(self, branch: str, low: int, high: int) -> NDArray[Any]:
        """Return a branch with one number per event, (B,)."""
        values = np.asarray(self.tree[branch].array(entry_start=low, entry_stop=high))
        # uint64 has no place in torch; counters and masks are far below its limit.
        return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)

    def lists(
        self, branch: str, low: int, high: int, width: int
    ) -> NDArray[np.float64]:
        """Return the first numbers of a branch of lists, (B, W), NaN where it ends."""
        lists = self.tree[branch].array(entry_start=low, entry_stop=high)
        lists = self.ak.fill_none(self.ak.pad_none(lists, width, clip=True), np.nan)
        values = np.asarray(self.ak.to_regular(lists), np.float64)
        return values.reshape(high - low, width)

    def hits(self, columns: Collection[str], low: int, high: int) -> Columns:
        """Return columns of the hits, (T,)."""
        hits, found = self.reader.hits[low:high], Columns()
        for name in columns:
            branch, kind = HITS[name]
            values = np.asarray(self.ak.flatten(getattr(hits, branch)))
            found[name] = values != 0 if kind is np.bool_ else values.astype(kind)
        return found

    def primary(self, low: int, high: int) -> Columns:
        """Return the first simulated particle, and the times, (B,) by name.

        `has_muon` and `num_others` are of the other particles.
        """
        particles = self.reader.mc_trks[low:high]
        found = {name: self._first(getattr(particles, name)) for name in PARTICLE}
        others = particles.pdgid[:, 1:]
        # A tau decays to a muon of the same lepton number.
        is_muon = others == np.copysign(MUON, found["pdgid"])
        found["has_muon"] = np.asarray(self.ak.any(is_muon, axis=-1))
        found["num_others"] = np.asarray(self.ak.num(others, axis=-1))
        for name in ("mc_t", "frame_index"):
            found[name] = self.numbers(name, low, high)
        for name in ("cc", "by"):
            found[name] = np.full(high - low, np.nan)
            if {"usr", "usr_names"} <= {*particles.fields}:
                names = self.ak.firsts(particles.usr_names)
                values = self.ak.firsts(particles.usr)
                found[name] = self._first(values[names == name])
        return found

    def best_jmuon(self, low: int, high: int) -> Columns:
        """Return the best track of JMuon, (B,) by name.

        It has the most stages of JMuon and no others, and then the best likelihood, as
        km3io's `best_jmuon`, which compiles for seconds.
        """
        ak, tracks = self.ak, self.reader.trks[low:high]
        if "rec_stages" not in tracks.fields:
            return {name: np.full(high - low, np.nan) for name in TRACK}
        stages = tracks.rec_stages
        first, last = JMUON
        is_own = ak.all((stages >= first) & (stages <= last), axis=-1)
        length = ak.where(is_own, ak.num(stages, axis=-1), 0)
        longest = ak.fill_none(ak.max(length, axis=-1), 0)
        is_best = (length == longest) & (length > 0)
        place = ak.argmax(tracks.lik[is_best], axis=-1, keepdims=True)
        return {
            name: self._first(getattr(tracks, name)[is_best][place]) for name in TRACK
        }

    def _first(self, lists: Any) -> NDArray[np.float64]:
        firsts = self.ak.fill_none(self.ak.firsts(lists), np.nan)
        return np.asarray(firsts, np.float64)


@contextmanager
def opened(path: Path) -> Iterator[OfflineFile]:
    """Open an offline file; ValueError if it is damaged or has no offline events."""
    uproot = _library("uproot")
    with open(path, "rb") as file:
        if file.read(len(ROOT)) != ROOT:
            raise ValueError(f"{path} is not a ROOT file")
    try:
        with uproot.open(str(path)) as root:
            tree, branch = TREE.split("/")
            if tree in root and branch in root[tree]:
                yield OfflineFile(root)
                return
            found = ", ".join(root.keys(recursive=False, cycle=False)[:8])
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of any kind, where the bytes are damaged
        (first, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{path} cannot be read: it is damaged, incomplete, or no offline file of "
            f"KM3NeT ({first})"
        ) from error
    raise ValueError(
        f"{path} must have a tree E of offline events, found {found or 'nothing'}"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Content:
    """What an offline file has."""

    path: Path
    offsets: NDArray[np.int64]  # borders of the events in the hits, (B + 1,)
    lacks: str  # what raw hits lack, "" for calibrated hits
    has_primary: bool
    has_tracks: bool
    weights: tuple[str, ...]
    is_corsika: bool


def _look_at(path: Path) -> _Content:
    with opened(path) as file:
        offsets, reader = file.offsets, file.reader
        num_events = len(offsets) - 1
        header = {}
        if "Head" in file.file:
            header = file.file["Head"].tojson()["map<string,string>"]
        programs = [header[k] for k in header if k.startswith(("physics", "simul"))]
        words = " ".join(programs).lower()
        lengths = {b: file.ak.num(file.tree[b].array()) for b in (W, W2LIST)}
        widths = {b: int(np.max(np.asarray(lengths[b]), initial=0)) for b in lengths}
        # Files are calibrated as a whole, so some events tell.
        last = int(np.searchsorted(offsets, 10_000)) + 1
        some, lacks = file.hits((X, Y, Z, "t", "tdc"), 0, last), ""
        if len(some["t"]):
            if not any(some[axis].any() for axis in (X, Y, Z)):
                lacks = "positions"
            elif some["tdc"].any() and (some["t"] == some["tdc"]).all():
                lacks = "calibrated times (t is not the raw time tdc)"
        return _Content(
            path=path,
            offsets=offsets,
            lacks=lacks,
            has_primary=bool(np.asarray(reader.n_mc_trks).any()),
            has_tracks=bool(np.asarray(reader.n_trks).any()),
            weights=_weight_names(widths, words) if num_events else (),
            is_corsika="corsika" in words,
        )


def _weight_names(widths: dict[str, int], programs: str) -> tuple[str, ...]:
    """Return names of the numbers in `w` and `w2list`; the generator defines them.

    A file may not tell its generator. Longer lists than GENHEN's are gSeaGen's, others
    get the names that both have in common.
    """
    definitions = _library("km3io.definitions")
    gseagen, genhen = (
        {number: name.split("_", 2)[2].lower() for name, number in known.items()}
        for known in (definitions.w2list_gseagen, definitions.w2list_genhen)
    )
    if "gseagen" in programs or widths[W2LIST] > max(genhen) + 1:
        names = gseagen
    elif "genhen" in programs:
        names = genhen
    else:
        names = {i: name for i, name in genhen.items() if gseagen.get(i) == name}
    return (
        *(f"w{i + 1}" for i in range(widths[W])),
        *(f"{W2LIST}_{names.get(i, i)}" for i in range(widths[W2LIST])),
    )


def _pdg_codes(code_B: NDArray[np.float64], is_corsika: bool) -> NDArray[np.int64]:
    """Return PDG codes of primaries, (B,); 0 where there is none.

    gSeaGen writes PDG codes of CORSIKA's primaries, older converters CORSIKA's own.
    """
    pdg_B = np.nan_to_num(code_B).astype(np.int64)
    known = {**BUNDLE, **CORSIKA} if is_corsika else BUNDLE
    found_B = pdg_B.copy()
    for code, pdg in known.items():
        found_B[pdg_B == code] = pdg
    if is_corsika:
        mass_B, charge_B = np.divmod(pdg_B, 100)  # a nucleus is 100 A + Z
        is_nucleus_B = (mass_B >= 2) & (mass_B < 60) & (charge_B <= mass_B)
        is_nucleus_B &= (charge_B > 0) & ~np.isin(pdg_B, (PROTON, 2112))
        nucleus_B = 1_000_000_000 + 10_000 * charge_B + 10 * mass_B
        found_B = np.where(is_nucleus_B, nucleus_B, found_B)
    return found_B


def _tau_topology(primary: Columns, charged_B: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the decay of taus, (B,): 1 without muon, 2 with one; 3 without a tau.

    It is -1 where the file has no particles but the primary.
    """
    is_tau_B = (np.abs(primary["pdgid"]) == TAU_NEUTRINO) & charged_B
    choices = {
        NO_TAU: ~is_tau_B,
        -1: primary["num_others"] == 0,
        TAU_TO_MUON: primary["has_muon"],
    }
    return np.select([*choices.values()], [*choices], TAU_WITHOUT_MUON).astype(np.int32)


def _origin(particle: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return zenith and azimuth of the origin, (B,) rad, of particles in flight."""
    flight_B3 = torch.from_numpy(np.stack([particle[n] for n in DIRECTIONS], axis=1))
    known_B = flight_B3.isfinite().all(dim=1) & flight_B3.any(dim=1)
    up_B3 = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    flight_B3 = torch.where(known_B[:, None], flight_B3, up_B3)
    angles = unit_vector_to_angles(flip_to_origin(flight_B3, "flight"))
    zenith_B, azimuth_B = (angle_B.where(known_B, torch.nan) for angle_B in angles)
    return zenith_B.numpy(), azimuth_B.numpy()


def _track_columns(track: Columns) -> Columns:
    """Return the columns of the best track of JMuon, (B,)."""
    zenith_B, azimuth_B = _origin(track)
    return {
        "jmuon_zenith": zenith_B,
        "jmuon_azimuth": azimuth_B,
        "jmuon_energy": track["E"],
        **{f"jmuon_position_{axis}": track[f"pos_{axis}"] for axis in (X, Y, Z)},
        "jmuon_time": track["t"],
        "jmuon_likelihood": track["lik"],
    }


def _library(module: str) -> Any:
    return import_extra(module, "KM3NeT's ROOT files need", "km3net")


def _name_of(files: Sequence[_Content]) -> str:
    others = len(files) - 1
    return f"{files[0].path}{f' (and {others} more)' if others else ''}"
