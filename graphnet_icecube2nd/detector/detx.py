"""KM3NeT's detector files: modules and their PMTs, from detx (text) or datx (binary).

A detx has lines of numbers after its comments; later comments are left out. The first
is the detector's number and the version (1: the number of modules instead); from
version 2 on the validity, the UTM reference and the number of modules follow. A module
has a line (id, string, floor; from version 4 on also position, quaternion and time
offset; from version 5 on also a status; the number of PMTs), which the lines of its
PMTs follow (id, position, direction, time offset; from version 3 on also a status). The
definition is that of Jpp, as km3det reads it. Shape letters: S modules, P PMTs.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.lazy import import_extra

DATX = b"####"  # first bytes of a datx file
HEADER = re.compile(r"[+-]?\d+\s+[vV]?\d+")  # number of the detector, version
VERSION = re.compile(r"v([1-5])", re.IGNORECASE)
MODULE_FIELDS = {1: 4, 2: 4, 3: 4, 4: 12, 5: 13}  # numbers in a line, by version
MAX_PMTS = 256  # of a module: `channel_id` has one byte
PMT_FIELDS = {1: 8, 2: 8, 3: 9, 4: 9, 5: 9}

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorFile:
    """Modules of a detector file, and their PMTs in the same order.

    Args:
        module_S: Number of each module, (S,): the `dom_id` of hits.
        string_S: String of each module, (S,).
        position_S3: Centre of each module, (S, 3) m.
        num_pmts_S: Number of PMTs of each module, (S,); 0 for those at the anchor.
        position_P3: Position of each PMT, (P, 3) m.
        direction_P3: Direction in which a PMT looks, (P, 3) unit vectors.
        time_offset_P: Time that is added to raw times of a PMT, (P,) ns.
    """

    module_S: Whole
    string_S: Whole
    position_S3: Floats
    num_pmts_S: Whole
    position_P3: Floats
    direction_P3: Floats
    time_offset_P: Floats

    @property
    def module_P(self) -> Whole:
        """Row of each PMT's module, (P,)."""
        return np.repeat(np.arange(len(self.num_pmts_S)), self.num_pmts_S)

    @property
    def channel_P(self) -> Whole:
        """Number of each PMT in its module, (P,): the `channel_id` of hits."""
        first_S = np.cumsum(self.num_pmts_S) - self.num_pmts_S
        return np.arange(len(self.position_P3)) - first_S[self.module_P]

    def find_pmts(self, module_T: Whole, channel_T: Whole) -> Whole:
        """Return the row of the PMT with these numbers, (T,); -1 if there is none."""
        key_P = MAX_PMTS * self.module_S[self.module_P] + self.channel_P
        key_T = MAX_PMTS * module_T + channel_T
        order_P = np.argsort(key_P)
        slot_T = np.searchsorted(key_P, key_T, sorter=order_P).clip(max=len(key_P) - 1)
        pmt_T: Whole = order_P[slot_T]
        return np.where((key_P[pmt_T] == key_T) & (channel_T < MAX_PMTS), pmt_T, -1)


def is_detx(text: str) -> bool:
    """Return whether a text begins as detx does: two numbers, or a number and V2."""
    first = next((words for _, words in _lines(text)), [])
    return HEADER.fullmatch(" ".join(first)) is not None


def read_detx(text: str, source: str) -> DetectorFile:
    """Return the modules of a detx; `source` is its name for messages.

    Raises:
        ValueError: The version is unknown, or a line has other numbers; the message
            names file and line.
    """
    lines, at = _lines(text), 0

    def numbers(what: str, how_many: int, whole: int = 0) -> list[float]:
        """Return the numbers of the next line, of which the first `whole` are whole."""
        nonlocal at
        at, words = next(lines, (0, []))
        if not words:
            raise ValueError(f"{source} is incomplete: {what} expected, found its end")
        try:
            values = [*map(int, words[:whole]), *map(float, words[whole:])]
        except ValueError:
            values = []
        if len(values) != how_many or not np.isfinite(values).all():
            raise ValueError(
                f"{source}, line {at}: {what} must have {how_many} numbers"
                f"{f', the first {whole} whole' if whole else ''}, found "
                f"{' '.join(words)[:60]!r}"
            )
        return values

    at, words = next(lines, (0, ["", ""]))
    match = VERSION.fullmatch(words[1])
    if match is None and words[1][:1] in "vV":
        raise ValueError(
            f"{source}, line {at}: the version of a detx must be 1 to 5, found "
            f"{' '.join(words)!r}"
        )
    version, num_modules = 1, words[1]
    if match is not None:
        version = int(match[1])
        *_, (at, words) = (next(lines, (0, [""])) for _ in range(3))
        num_modules = words[0]
    if not num_modules.isdigit():
        raise ValueError(
            f"{source}, line {at}: the number of modules expected, found "
            f"{num_modules!r}"
        )
    modules, pmts = list[list[float]](), list[list[float]]()
    for module in range(int(num_modules)):
        what = f"module {module + 1} of {num_modules}"
        modules.append(numbers(what, MODULE_FIELDS[version], whole=3))
        name, num_pmts = modules[-1][0], modules[-1][-1]
        if num_pmts not in range(MAX_PMTS + 1):
            raise ValueError(
                f"{source}, line {at}: the number of PMTs of module {name} must be a "
                f"whole number from 0 to {MAX_PMTS}, found {num_pmts:g}"
            )
        for pmt in range(int(num_pmts)):
            what = f"PMT {pmt + 1} of module {name}"
            pmts.append(numbers(what, PMT_FIELDS[version], whole=1))
            if not any(pmts[-1][4:7]):
                raise ValueError(f"{source}, line {at}: the direction of {what} is 0")
    at, words = next(lines, (0, []))
    if words:
        raise ValueError(
            f"{source}, line {at}: the end expected after {num_modules} modules, found "
            f"{' '.join(words)[:60]!r}"
        )
    module_SF = np.array(modules, np.float64).reshape(-1, MODULE_FIELDS[version])
    pmt_PF = np.array(pmts, np.float64).reshape(-1, PMT_FIELDS[version])
    num_pmts_S = module_SF[:, -1].astype(np.int64)
    position_S3 = module_SF[:, 3:6]
    if version < 4:
        position_S3 = _centres(pmt_PF[:, 1:4], pmt_PF[:, 4:7], num_pmts_S)
    return _checked(
        source,
        module_S=module_SF[:, 0],
        string_S=module_SF[:, 1],
        position_S3=position_S3,
        num_pmts_S=num_pmts_S,
        position_P3=pmt_PF[:, 1:4],
        direction_P3=pmt_PF[:, 4:7],
        time_offset_P=pmt_PF[:, 7],
    )


def read_detector_file(path: Path) -> DetectorFile:
    """Return the modules of a detx or datx file, which its content tells apart.

    Raises:
        OSError: The file does not exist.
        ValueError: The file has another format or is damaged; the message names it.
        ImportError: The file is datx and km3det is not installed.
    """
    content = path.read_bytes()
    if content.startswith(DATX):
        return _read_datx(content, str(path))
    text = content.decode(errors="replace")
    if not is_detx(text):
        raise ValueError(f"{path} must be a detx or a datx file, found another format")
    return read_detx(text, str(path))


def _read_datx(content: bytes, source: str) -> DetectorFile:
    import_extra("km3det", "datx files need", "km3net")
    read_datx = import_extra("km3det.detector", "datx files need", "km3net").read_datx
    try:
        found = read_datx(io.BytesIO(content))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise ValueError(f"{source} is damaged, or no datx: {error}") from None
    modules, pmts = found["modules"], found["pmts"]
    position_S3, position_P3, direction_P3 = (
        np.stack([table[f"{prefix}_{axis}"] for axis in "xyz"], axis=1)
        for table, prefix in ((modules, "pos"), (pmts, "pos"), (pmts, "dir"))
    )
    return _checked(
        source,
        module_S=modules["module_id"],
        string_S=modules["du"],
        position_S3=position_S3,
        num_pmts_S=modules["n_pmts"],
        position_P3=position_P3,
        direction_P3=direction_P3,
        time_offset_P=pmts["t0"],
    )


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line of numbers.

    A line of the comments at the begin may lack its #, so they end with the last # or,
    if others follow, before the first line that looks like a header.
    """
    lines = text.splitlines()
    last = max((i for i, line in enumerate(lines, 1) if line[:1] == "#"), default=0)
    headers = (i for i in range(last) if HEADER.fullmatch(lines[i].strip()))
    first = next(headers, last)
    for number, line in enumerate(lines[first:], first + 1):
        if line[:1] != "#" and (words := line.split()):
            yield number, words


def _centres(position_P3: Floats, direction_P3: Floats, num_pmts_S: Whole) -> Floats:
    """Return the centres of modules, (S, 3), on the axes of their PMTs.

    PMTs lie on a sphere, at centre + radius * direction: a linear fit gives both. The
    centre of a module with one PMT, or with one direction, is the PMTs' mean.
    """
    centre_S3 = np.zeros((len(num_pmts_S), 3))
    last_S = np.cumsum(num_pmts_S)
    for module, (last, number) in enumerate(zip(last_S, num_pmts_S, strict=True)):
        position_N3 = position_P3[last - number : last]
        direction_N3 = direction_P3[last - number : last]
        if not number:
            continue
        away_N3 = direction_N3 - direction_N3.mean(axis=0)
        radius = (position_N3 * away_N3).sum() / max((away_N3**2).sum(), 1e-12)
        centre_S3[module] = (position_N3 - radius * direction_N3).mean(axis=0)
    return centre_S3


def _checked(source: str, **columns: NDArray[np.generic]) -> DetectorFile:
    """Return the file's content if its modules are distinct and have PMTs."""
    arrays = dict[str, Any]()
    for name, values in columns.items():
        arrays[name] = values.astype(np.int64 if name[-2:] == "_S" else np.float64)
    module_S, num_pmts_S = arrays["module_S"], arrays["num_pmts_S"]
    ids_S, count_S = np.unique(module_S, return_counts=True)
    if (count_S > 1).any():
        raise ValueError(f"{source}: module {ids_S[count_S.argmax()]} occurs twice")
    if not num_pmts_S.any():
        raise ValueError(f"{source} must have at least one module with PMTs")
    length_P = np.linalg.norm(arrays["direction_P3"], axis=1, keepdims=True)
    arrays["direction_P3"] = arrays["direction_P3"] / length_P
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{source}: {name} has values that are not finite")
    return DetectorFile(**arrays)
