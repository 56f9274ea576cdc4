"""Detector files of KM3NeT, of all versions and as datx, as geometries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graphnet_icecube2nd.detector.detx import is_detx, read_detector_file, read_detx
from graphnet_icecube2nd.detector.geometry import DetectorGeometry

CENTRES = {5: (10.0, 20.0, 30.0), 9: (10.0, 20.0, 21.0)}  # module: x, y, z
LOOKS = ((0.0, 0.0, -1.0), (0.6, 0.0, 0.8), (0.0, -0.8, 0.6))
RADIUS = 0.2


def text_of(version: int) -> str:
    """Two modules of three PMTs at the string 7, and from version 4 on its anchor."""
    lines = ["# a comment", "# V9", f"23 v{version}"]
    if version == 1:
        lines = ["23 2"]
    else:
        lines += ["1500000000.1 9999999999.0", "UTM WGS84 32N 256500 4743000 -2425"]
        lines += ["", "3" if version > 3 else "2"]
    more = {4: "1 0 0 0 0.5", 5: "1 0 0 0 0.5 0"}.get(version, "")
    if version > 3:
        lines.append(f"3 7 0 10 20 0 {more} 0")
    for floor, (module, centre) in enumerate(CENTRES.items(), start=1):
        place = " ".join(map(str, centre)) if version > 3 else ""
        lines.append(f" {module}  7 {floor} {place} {more} 3")
        for pmt, look in enumerate(LOOKS):
            where = [c + RADIUS * d for c, d in zip(centre, look, strict=True)]
            numbers = [100 * module + pmt, *where, *look, 1000 * module + pmt]
            lines.append("  ".join(map(str, [*numbers, *([0] if version > 2 else [])])))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_versions(tmp_path: Path, version: int) -> None:
    path = tmp_path / "any.name"
    path.write_text(text_of(version))
    geometry = DetectorGeometry.from_file(path)
    wanted = torch.tensor([*CENTRES.values()], dtype=torch.float64)
    torch.testing.assert_close(geometry.position_S3, wanted)
    assert geometry.string_S.tolist() == [7, 7]
    assert geometry.pmt_direction_SP3 is not None
    looks = torch.tensor([LOOKS] * 2, dtype=torch.float64)
    torch.testing.assert_close(geometry.pmt_direction_SP3, looks)
    file = read_detector_file(path)
    found = file.find_pmts(np.array([9, 5, 5, 4]), np.array([2, 0, 3, 0]))
    assert found.tolist() == [5, 0, -1, -1]
    assert file.time_offset_P[found[:2]].tolist() == [9002.0, 5000.0]
    np.testing.assert_allclose(file.position_P3[0], (10, 20, 29.8))


@pytest.mark.parametrize(
    ("version", "old", "new", "message"),
    [
        (2, "23 v2", "23 v6", r"line 3: the version .* '23 v6'"),
        (2, "\n2\n", "\ntwo\n", r"line 7: the number of modules .* 'two'"),
        (3, "  0.6  ", "  ", r"line 10: PMT 2 of module 5 must have 9 numbers"),
        (3, "  0.6  ", "  wide  ", r"line 10: PMT 2 of module 5"),
        (3, "  0.6  ", "  nan  ", r"line 10: PMT 2 of module 5"),
        (3, "  0.0  0.0  -1.0  ", "  0  0  0  ", r"line 9: the direction of PMT 1"),
        (5, " 9  7 2 ", " 9.5  7 2 ", r"line 13: module 3 of 3 .* first 3 whole"),
        (5, " 9  7 2 ", " 5  7 2 ", "module 5 occurs twice"),
        (1, "23 2", "23 1", r"line 6: the end expected after 1 modules"),
        (1, "23 2", "23 3", "is incomplete: module 3 of 3"),
        (1, "5  7 1   3", "5  7 1 -3", r"line 2: the number of PMTs .* found -3"),
        (1, "5  7 1   3", "5  7 1 2.5", r"line 2: the number of PMTs .* found 2\.5"),
    ],
)
def test_faults_are_named(
    tmp_path: Path, version: int, old: str, new: str, message: str
) -> None:
    text = text_of(version)
    assert old in text
    path = tmp_path / "bad.detx"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"bad\.detx.*{message}"):
        DetectorGeometry.from_file(path)


@pytest.mark.parametrize("version", [1, 5])
def test_comments_between_the_numbers(version: int) -> None:
    plain = text_of(version).splitlines()
    mixed = ["# no # in", "the next line", "# of comments", *plain]
    mixed = [*mixed[:-5], "# comment", *mixed[-5:], "# the end"]
    found = [read_detx("\n".join(lines), "d.detx") for lines in (plain, mixed)]
    assert is_detx("\n".join(mixed))
    for name, values in vars(found[0]).items():
        np.testing.assert_array_equal(values, vars(found[1])[name])


def test_a_table_is_no_detx() -> None:
    assert not is_detx("sensor_id x y z\n0 1 2 3\n")
    assert not is_detx("")
    with pytest.raises(ValueError, match="must have at least one module with PMTs"):
        read_detx("23 0", "empty")


class TestPmtsOfATable:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "in.detx").write_text(text_of(5))
        DetectorGeometry.from_file(tmp_path / "in.detx").to_csv(tmp_path / "g.csv")
        return tmp_path / "g.csv"

    def test_round_trip(self, path: Path) -> None:
        first = DetectorGeometry.from_file(path.with_name("in.detx"))
        again = DetectorGeometry.from_file(path)
        assert torch.equal(again.position_S3, first.position_S3)
        assert torch.equal(again.string_S, first.string_S)
        assert first.pmt_direction_SP3 is not None
        assert again.pmt_direction_SP3 is not None
        assert torch.equal(again.pmt_direction_SP3, first.pmt_direction_SP3)

    def test_a_module_may_lack_a_pmt(self, path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([lines[0], *lines[:1:-1]]))  # PMT 0 of the first
        found = DetectorGeometry.from_file(path)
        assert found.pmt_direction_SP3 is not None
        known = found.pmt_direction_SP3[:, :, 0].isfinite()
        assert known.tolist() == [[False, True, True], [True, True, True]]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("1,7,10.0,20.0,21.0,1.0,2,", "1,7,10.0,20.0,21.0,1.0,1,", "line 7: PMT 1"),
            ("1,7,10.0,20.0,21.0,1.0,2,", "1,7,10.0,20.5,21.0,1.0,2,", "line 7: PMT 2"),
            ("21.0,1.0,2,", "21.0,1.0,100000000000,", "line 7, .*'pmt'.* 0 to 255"),
            ("0.6,0.0,0.8", "0.6,0.0,0.9", "DOM 0 .* length 1"),
        ],
    )
    def test_faults(self, path: Path, old: str, new: str, message: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=message):
            DetectorGeometry.from_file(path)


class TestRealFiles:
    def test_detx_and_datx_of_one_detector(self) -> None:
        data = pytest.importorskip("km3net_testdata")
        pytest.importorskip("km3det")
        name = "KM3NeT_00000133_20221025"
        text, binary = (
            DetectorGeometry.from_file(data.data_path(f"{kind}/{name}.{kind}"))
            for kind in ("detx", "datx")
        )
        assert len(text) == len(binary) == 378  # 21 strings of 18 modules
        assert len(text.string_S.unique()) == 21
        torch.testing.assert_close(text.position_S3, binary.position_S3)
        assert text.pmt_direction_SP3 is not None
        assert binary.pmt_direction_SP3 is not None
        torch.testing.assert_close(text.pmt_direction_SP3, binary.pmt_direction_SP3)

    @pytest.mark.parametrize("content", [b"####", b"####\5\0\0\0abc", b"####" * 9])
    def test_a_damaged_datx(self, tmp_path: Path, content: bytes) -> None:
        pytest.importorskip("km3det")
        (tmp_path / "d.datx").write_bytes(content)
        with pytest.raises(ValueError, match=r"d\.datx is damaged"):
            DetectorGeometry.from_file(tmp_path / "d.datx")

    @pytest.mark.parametrize(
        ("name", "num_modules", "num_strings"),
        [
            ("D_ORCA006_t.A02181836.p.A02181837.r.A02182001", 108, 6),  # version 3
            ("detx_v4", 90, 5),
            ("detx_v5", 108, 6),
            ("orca_115strings_av23min20mhorizontal_18OMs_alt9mvertical_v1", 2070, 115),
        ],
    )
    def test_modules(self, name: str, num_modules: int, num_strings: int) -> None:
        data = pytest.importorskip("km3net_testdata")
        path = data.data_path(f"detx/{name}.detx")
        geometry = DetectorGeometry.from_file(path)
        file = read_detector_file(Path(path))
        assert len(geometry) == num_modules
        assert len(geometry.string_S.unique()) == num_strings
        # PMTs lie on a sphere around the centre and look away from it.
        from_centre_P3 = file.position_P3 - file.position_S3[file.module_P]
        radius_P = np.linalg.norm(from_centre_P3, axis=1)
        np.testing.assert_allclose(radius_P, RADIUS, atol=2e-3)
        off_P3 = from_centre_P3 - radius_P[:, None] * file.direction_P3
        np.testing.assert_allclose(off_P3, 0.0, atol=2e-3)
