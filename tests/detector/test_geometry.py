from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphnet_icecube2nd.detector.geometry import (
    DetectorGeometry,
    depth_to_z,
    nearest_dom_plain,
    z_to_depth,
)


@pytest.fixture(scope="module")
def icecube86() -> DetectorGeometry:
    return DetectorGeometry.icecube86()


def make_geometry(position_S3: Tensor, name: str = "toy") -> DetectorGeometry:
    return DetectorGeometry(
        name=name,
        position_S3=position_S3,
        string_S=torch.ones(len(position_S3), dtype=torch.int64),
        rde_S=torch.ones(len(position_S3), dtype=torch.float64),
    )


class TestDepth:
    def test_hand_made_cases(self) -> None:
        assert depth_to_z(1948.07) == 0.0
        assert depth_to_z(0.0) == 1948.07  # the surface lies above the detector
        assert z_to_depth(-500.0) == pytest.approx(2448.07)

    @given(st.floats(0.0, 3000.0))
    def test_round_trip(self, depth: float) -> None:
        assert z_to_depth(depth_to_z(depth)) == pytest.approx(depth, abs=1e-9)

    def test_tensors(self) -> None:
        depth = torch.tensor([1448.07, 2448.07], dtype=torch.float64)
        wanted = torch.tensor([500.0, -500.0], dtype=torch.float64)
        torch.testing.assert_close(depth_to_z(depth), wanted)


class TestIceCube86:
    def test_size_and_types(self, icecube86: DetectorGeometry) -> None:
        assert len(icecube86) == 5160
        assert icecube86.name == "icecube86"
        assert icecube86.position_S3.shape == (5160, 3)
        assert icecube86.position_S3.dtype == torch.float64
        assert icecube86.string_S.dtype == torch.int64
        assert icecube86.rde_S.dtype == torch.float64

    def test_sixty_doms_on_each_of_86_strings(
        self, icecube86: DetectorGeometry
    ) -> None:
        string, num_doms = icecube86.string_S.unique(return_counts=True)
        assert string.tolist() == list(range(1, 87))
        assert num_doms.tolist() == [60] * 86
        assert (icecube86.string_S.diff() >= 0).all()

    def test_first_dom(self, icecube86: DetectorGeometry) -> None:
        assert icecube86.position_S3[0].tolist() == [-256.14, -521.08, 496.03]

    def test_highest_and_deepest_dom(self, icecube86: DetectorGeometry) -> None:
        z_S = icecube86.position_S3[:, 2]
        assert (int(z_S.argmax()), z_S.max()) == (63 * 60, 524.56)
        assert (int(z_S.argmin()), z_S.min()) == (37 * 60 + 59, -512.82)

    def test_doms_of_a_string_go_down(self, icecube86: DetectorGeometry) -> None:
        z_string_dom = icecube86.position_S3[:, 2].reshape(86, 60)
        assert (z_string_dom.diff(dim=1) < 0).all()

    def test_strings_are_straight(self, icecube86: DetectorGeometry) -> None:
        xy_string_dom = icecube86.position_S3[:, :2].reshape(86, 60, 2)
        bend = (xy_string_dom - xy_string_dom[:, :1]).norm(dim=2).amax(dim=1)
        assert (bend > 0).nonzero().flatten().tolist() == [20]  # string 21 alone
        assert bend[20] < 0.7

    def test_spacing(self, icecube86: DetectorGeometry) -> None:
        step = -icecube86.position_S3[:, 2].reshape(86, 60).diff(dim=1)
        # Seventeen metres; string 29 has 16 and 18 m in turn, and the last step of a
        # string is often another one.
        ordinary = step[:78]
        assert ((ordinary - 17).abs() < 0.1).float().mean() > 0.97
        assert 13 < ordinary.min() < ordinary.max() < 20
        # DeepCore: ten DOMs 10 m apart above the dust layer, fifty 7 m apart below it.
        deep = step[78:]
        assert ((deep[:, :9] - 10.01).abs() < 0.02).all()
        assert ((deep[:, 9] - 257.31).abs() < 0.02).all()
        assert ((deep[:, 10:57] - 7.01).abs() < 0.02).all()

    def test_centre_of_coordinates_is_inside(self, icecube86: DetectorGeometry) -> None:
        assert (icecube86.position_S3.mean(0).abs() < 60).all()

    def test_relative_efficiency(self, icecube86: DetectorGeometry) -> None:
        assert sorted(set(icecube86.rde_S.tolist())) == [1.0, 1.35]
        string, num_doms = icecube86.string_S[icecube86.rde_S > 1.1].unique(
            return_counts=True
        )
        assert dict(zip(string.tolist(), num_doms.tolist(), strict=True)) == {
            **{36: 14, 43: 1, 79: 12, 80: 14},
            **dict.fromkeys(range(81, 87), 60),
        }

    def test_is_read_once(self, icecube86: DetectorGeometry) -> None:
        assert DetectorGeometry.icecube86() is icecube86

    def test_survives_pickling(self, icecube86: DetectorGeometry) -> None:
        # A DataLoader that spawns its workers sends it to them.
        again = pickle.loads(pickle.dumps(icecube86))
        assert torch.equal(again.position_S3, icecube86.position_S3)

    @pytest.mark.data
    def test_is_the_geometry_of_the_competition(
        self, icecube86: DetectorGeometry, shared_dir: Path
    ) -> None:
        path = shared_dir / "data/kaggle_sample/sensor_geometry.csv"
        if not path.exists():
            pytest.skip(f"{path} is absent")
        theirs = DetectorGeometry.from_csv(path)
        assert torch.equal(theirs.position_S3, icecube86.position_S3)
        assert torch.equal(theirs.string_S, icecube86.string_S)
        assert torch.equal(theirs.rde_S, icecube86.rde_S)

    @pytest.mark.data
    def test_agrees_with_graphnets_incomplete_table(
        self, icecube86: DetectorGeometry, shared_dir: Path
    ) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        path = shared_dir / (
            "data/graphnet/data/geometry_tables/icecube/icecube86.parquet"
        )
        if not path.exists():
            pytest.skip(f"{path} is absent")
        table = pandas.read_parquet(path).reset_index(drop=True)
        table = table[table.dom_number <= 60]  # the others are IceTop
        string, dom = torch.tensor(table[["string", "dom_number"]].values).T
        sensor_id = 60 * (string - 1) + dom - 1
        assert len(sensor_id.unique()) == 5160 - 77
        position = torch.tensor(table[["dom_x", "dom_y", "dom_z"]].values)
        torch.testing.assert_close(  # stored there in float32
            icecube86.position_S3[sensor_id], position, atol=1e-4, rtol=0
        )
        rde = torch.tensor(table.rde.values)
        assert int(rde.isnan().sum()) == 2
        torch.testing.assert_close(
            icecube86.rde_S[sensor_id], rde.nan_to_num(nan=1.0), atol=1e-7, rtol=0
        )


class TestHighQeFlag:
    def test_rde_rule(self, icecube86: DetectorGeometry) -> None:
        flag_S = icecube86.high_qe_flag()
        assert flag_S.dtype == torch.float32
        assert torch.equal(flag_S, (icecube86.rde_S == 1.35).float())
        assert int(flag_S.sum()) == 401

    def test_published_rule(self, icecube86: DetectorGeometry) -> None:
        # Written down again from what the published code does to a table of
        # 5160 rows, DOM by DOM.
        wanted = []
        for sensor_id in range(5160):
            string, dom = sensor_id // 60 + 1, sensor_id % 60 + 1
            lower_doms = string in range(79, 87) and dom >= 12
            slip = dom == 1 and string - 1 in range(79, 87)
            wanted.append(float(lower_doms or slip))
        flag_S = icecube86.high_qe_flag("published")
        assert flag_S.dtype == torch.float32
        assert flag_S.tolist() == wanted
        assert int(flag_S.sum()) == 8 * 49 + 7

    @pytest.mark.parametrize("num_doms", [1, 59, 4680, 4739, 4741, 4800, 5161, 5300])
    def test_published_rule_on_other_sizes(self, num_doms: int) -> None:
        pandas = pytest.importorskip("pandas")
        geometry = make_geometry(torch.zeros(num_doms, 3, dtype=torch.float64))
        # Label slices of pandas, whose inclusive end is the slip.
        flag = pandas.Series(0.0, index=range(num_doms))
        for whole_string in range(num_doms // 60):
            if 78 <= whole_string <= 85:
                flag.loc[60 * whole_string + 11 : 60 * whole_string + 60] = 1.0
        assert geometry.high_qe_flag("published").tolist() == flag.tolist()

    def test_unknown_rule(self, icecube86: DetectorGeometry) -> None:
        with pytest.raises(ValueError, match=r"'deepcore'.*rde, published"):
            icecube86.high_qe_flag("deepcore")


class TestLookup:
    @pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
    def test_positions(self, icecube86: DetectorGeometry, dtype: torch.dtype) -> None:
        sensor_id_T = torch.tensor([5159, 0, 0, 77], dtype=dtype)
        position_T3 = icecube86.lookup(sensor_id_T)
        assert position_T3.dtype == torch.float64
        assert torch.equal(position_T3, icecube86.position_S3[[5159, 0, 0, 77]])

    def test_no_pulse(self, icecube86: DetectorGeometry) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert icecube86.lookup(none).shape == (0, 3)

    def test_bad_ids_are_named(self, icecube86: DetectorGeometry) -> None:
        with pytest.raises(ValueError, match=r"-1, 5160 not in.*0 to 5159"):
            icecube86.lookup(torch.tensor([3, 5160, -1, 5160]))
        with pytest.raises(ValueError, match=r"\.\.\. \(9 in all\)"):
            icecube86.lookup(torch.arange(-9, 5))

    def test_float_ids(self, icecube86: DetectorGeometry) -> None:
        with pytest.raises(ValueError, match="float32"):
            icecube86.lookup(torch.tensor([1.0]))


class TestNearestDom:
    def test_every_dom_finds_itself(self, icecube86: DetectorGeometry) -> None:
        for dtype in (torch.float32, torch.float64):
            found_T = icecube86.nearest_dom(icecube86.position_S3.to(dtype))
            assert torch.equal(found_T, torch.arange(5160))

    def test_tolerance_is_a_distance(self, icecube86: DetectorGeometry) -> None:
        direction_3 = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
        near_S3 = icecube86.position_S3 + 0.999 * direction_3
        far_S3 = icecube86.position_S3 + 1.001 * direction_3
        assert torch.equal(icecube86.nearest_dom(near_S3), torch.arange(5160))
        assert (icecube86.nearest_dom(far_S3) == -1).all()

    def test_far_away_and_not_a_number(self, icecube86: DetectorGeometry) -> None:
        inf, nan = float("inf"), float("nan")
        far_T3 = torch.tensor(
            [[0, 0, 0], [1e30, 0, 0], [inf, 0, 0], [0, -inf, 0], [nan, 0, 0]]
        )
        assert icecube86.nearest_dom(far_T3).tolist() == [-1] * 5

    def test_no_pulse(self, icecube86: DetectorGeometry) -> None:
        assert icecube86.nearest_dom(torch.zeros(0, 3)).tolist() == []

    def test_lowest_id_of_equally_near_doms(self) -> None:
        position_S3 = torch.tensor([[9.0, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]])
        geometry = make_geometry(position_S3.double())
        target_T3 = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
        assert geometry.nearest_dom(target_T3, 2.0).tolist() == [1, 1]

    @pytest.mark.parametrize("tolerance", [1e-6, 0.5, 1.0, 7.0, 40.0, 500.0])
    def test_fast_is_plain_on_icecube86(
        self, icecube86: DetectorGeometry, tolerance: float
    ) -> None:
        generator = torch.Generator().manual_seed(20230419)
        target_T3 = torch.randn(1009, 3, dtype=torch.float64, generator=generator)
        dom_T = torch.randint(0, 5160, (1009,), generator=generator)
        target_T3 = icecube86.position_S3[dom_T] + 0.6 * tolerance * target_T3
        fast_T = icecube86.nearest_dom(target_T3, tolerance)
        plain_T = nearest_dom_plain(icecube86.position_S3, target_T3, tolerance)
        assert torch.equal(fast_T, plain_T)
        assert (fast_T >= 0).any()
        assert tolerance >= 40 or (fast_T < 0).any()

    @given(data=st.data())
    @settings(deadline=None, max_examples=60)
    def test_fast_is_plain(self, data: st.DataObject) -> None:
        seed = data.draw(st.integers(0, 2**32), label="seed")
        num_doms = data.draw(st.integers(1, 97), label="num_doms")
        size = data.draw(st.floats(0.0, 1e4), label="size of the detector")
        tolerance = data.draw(st.floats(1e-3, 1e3), label="tolerance")
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(num_doms + 101, 3, dtype=torch.float64, generator=generator)
        position_S3 = 1e3 * noise[0] + size * noise[:num_doms]
        dom_T = torch.randint(0, num_doms, (101,), generator=generator)
        target_T3 = position_S3[dom_T] + 0.6 * tolerance * noise[num_doms:]
        fast_T = make_geometry(position_S3).nearest_dom(target_T3, tolerance)
        plain_T = nearest_dom_plain(position_S3, target_T3, tolerance)
        # Of two DOMs at the same distance but for rounding either may be taken.
        differ_T = fast_T != plain_T
        fast_T3, plain_T3 = position_S3[fast_T], position_S3[plain_T]
        torch.testing.assert_close(
            (fast_T3 - target_T3)[differ_T].norm(dim=1),
            (plain_T3 - target_T3)[differ_T].norm(dim=1),
            rtol=1e-12,
            atol=0,
        )
        assert torch.equal(fast_T < 0, plain_T < 0)

    def test_many_pulses_in_more_than_one_chunk(
        self, icecube86: DetectorGeometry
    ) -> None:
        dom_T = torch.arange(300_007) % 5160
        found_T = icecube86.nearest_dom(icecube86.position_S3[dom_T].float())
        assert torch.equal(found_T, dom_T)

    def test_bad_input(self, icecube86: DetectorGeometry) -> None:
        with pytest.raises(ValueError, match=r"\(T, 3\), got \(3,\)"):
            icecube86.nearest_dom(torch.zeros(3))
        for tolerance in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"got {tolerance}"):
                icecube86.nearest_dom(torch.zeros(1, 3), tolerance)


def write(folder: Path, text: str, name: str = "sensors.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestFromCsv:
    def test_rows_in_any_order(self, tmp_path: Path) -> None:
        path = write(tmp_path, "z,sensor_id,x,y\n3,1,1,2\n-3.5,2,0,0\n30,0,10,20\n")
        geometry = DetectorGeometry.from_csv(path)
        assert geometry.name == "sensors"
        assert geometry.position_S3.tolist() == [[10, 20, 30], [1, 2, 3], [0, 0, -3.5]]
        assert geometry.string_S.tolist() == [1, 1, 1]
        assert geometry.rde_S.tolist() == [1.0, 1.0, 1.0]

    def test_own_columns(self, tmp_path: Path) -> None:
        path = write(
            tmp_path,
            "sensor_id,x,y,z,string,rde,comment\n"
            "1,0,0,0,40,1.35,new\n\n# a remark\n0,0,0,9,39,0.9,old\n",
        )
        geometry = DetectorGeometry.from_csv(path)
        assert geometry.string_S.tolist() == [39, 40]
        assert geometry.rde_S.tolist() == [0.9, 1.35]

    def test_default_string(self, tmp_path: Path) -> None:
        rows = [f"{i},{i},0,0" for i in range(121)]
        path = write(tmp_path, "\n".join(["sensor_id,x,y,z", *rows]))
        string_S = DetectorGeometry.from_csv(path).string_S
        assert string_S.tolist() == [1] * 60 + [2] * 60 + [3]

    def test_the_packages_own_table(
        self, icecube86: DetectorGeometry, tmp_path: Path
    ) -> None:
        rows = [
            f"{i // 60 + 1},{i % 60 + 1},{x},{y},{z},{rde}"
            for i, ((x, y, z), rde) in enumerate(
                zip(
                    icecube86.position_S3.tolist(),
                    icecube86.rde_S.tolist(),
                    strict=True,
                )
            )
        ]
        path = write(tmp_path, "\n".join(["string,dom,x,y,z,rde", *reversed(rows)]))
        geometry = DetectorGeometry.from_csv(path)
        assert torch.equal(geometry.position_S3, icecube86.position_S3)
        assert torch.equal(geometry.string_S, icecube86.string_S)
        assert torch.equal(geometry.rde_S, icecube86.rde_S)

    def test_efficiency_comes_from_icecube86_dom_by_dom(
        self, icecube86: DetectorGeometry, tmp_path: Path
    ) -> None:
        x, y, z = icecube86.position_S3[5100].tolist()
        doms = f"0,{x},{y},{z + 0.9}\n1,{x},{y},{z + 1.1}\n2,{x},{y},{z}\n"
        geometry = DetectorGeometry.from_csv(
            write(tmp_path, "sensor_id,x,y,z\n" + doms)
        )
        assert geometry.rde_S.tolist() == [1.35, 1.0, 1.35]
        rows = f"0,{x},{y},{z},\n1,0,0,2000,nan\n2,0,0,0,1.2\n"
        geometry = DetectorGeometry.from_csv(
            write(tmp_path, "sensor_id,x,y,z,rde\n" + rows)
        )
        assert geometry.rde_S.tolist() == [1.35, 1.0, 1.2]

    def test_windows_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, '\ufeff"sensor_id","x","y","z"\r\n0,1,2,3\r\n')
        assert DetectorGeometry.from_csv(path).position_S3.tolist() == [[1, 2, 3]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "a header and at least one row"),
            ("sensor_id,x,y,z\n", "a header and at least one row"),
            (
                "sensor_id,x,y\n0,1,2\n",
                r"no column 'z'; .*: sensor_id, x, y",
            ),
            ("x,y,z\n0,1,2\n", "no column 'sensor_id'"),
            ("sensor_id,x,x,z\n0,1,2,3\n", "line 1: .* twice"),
            ("sensor_id,x,y,z\n0,1,2\n", "line 2: 3 fields, but the header has 4"),
            (
                "# remark\nsensor_id,x,y,z\n0,1,nan,3\n",
                "line 3, column 'y': got 'nan', allowed: finite numbers",
            ),
            ("sensor_id,x,y,z\n0,1,2,inf\n", "line 2, column 'z': got 'inf'"),
            ("sensor_id,x,y,z\n0,1,2,\n", "line 2, column 'z': got ''"),
            ("sensor_id,x,y,z\n0,1,2,deep\n", "line 2, column 'z': got 'deep'"),
            (
                "sensor_id,x,y,z\n0.5,1,2,3\n",
                "line 2, column 'sensor_id': got '0.5', allowed: whole numbers from 0",
            ),
            ("sensor_id,x,y,z\n-1,1,2,3\n", "line 2, column 'sensor_id': got '-1'"),
            (
                "sensor_id,x,y,z\n0,1,2,3\n1,1,2,3\n0,4,5,6\n",
                "line 4, column 'sensor_id': 0 is .* line 2",
            ),
            (
                "sensor_id,x,y,z\n0,1,2,3\n3,1,2,3\n",
                r"line 3, column 'sensor_id': got 3, but the 2 rows must hold 0 to 1, "
                "each once; missing: 1",
            ),
            (
                "string,dom,x,y,z\n1,61,1,2,3\n",
                "line 2, column 'dom': got '61', allowed: whole numbers 1 to 60",
            ),
            ("string,dom,x,y,z\n0,1,1,2,3\n", "column 'string': got '0', allowed"),
            ("string,dom,x,y,z\n1,2,1,2,3\n", "missing: 0"),
            ("sensor_id,x,y,z,string\n0,1,2,3,4.5\n", "column 'string': got '4.5'"),
            (
                "sensor_id,x,y,z,rde\n0,1,2,3,0\n",
                "line 2, column 'rde': got '0', allowed: numbers above 0",
            ),
        ],
    )
    def test_malformed_file(self, tmp_path: Path, text: str, message: str) -> None:
        path = write(tmp_path, text)
        with pytest.raises(ValueError, match=message) as error:
            DetectorGeometry.from_csv(path)
        assert str(error.value).startswith(str(path))


class TestOtherFormats:
    @pytest.mark.parametrize(
        "names",
        [
            ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "sensor_string_id"),
            ("dom_x", "dom_y", "dom_z", "string"),
        ],
    )
    @pytest.mark.parametrize("suffix", ["parquet", "csv"])
    def test_graphnets_tables(
        self, tmp_path: Path, names: tuple[str, ...], suffix: str
    ) -> None:
        pa = pytest.importorskip("pyarrow")
        columns = ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [8.0, 7.0])
        table = pa.table(dict(zip(names, columns, strict=True), sensor_id=[1, 0]))
        path = tmp_path / f"g.{suffix}"
        if suffix == "parquet":
            from pyarrow.parquet import write_table
        else:
            from pyarrow.csv import write_csv as write_table
        write_table(table, path)
        geometry = DetectorGeometry.from_file(path)
        assert geometry.position_S3.tolist() == [[2, 4, 6], [1, 3, 5]]
        assert geometry.string_S.tolist() == [7, 8]

    def test_prometheus(self, tmp_path: Path) -> None:
        head = "### Metadata ###\nMedium:\tice\nDOM Radius [cm]:\t30\n"
        rows = ("1\t2\t3\t0\t0\n", "1\t2\t-3.5\t0\t1\n", "4\t5\t6\t7\t0\n")
        text = head + "### Modules ###\n" + "".join(rows)
        geometry = DetectorGeometry.from_file(write(tmp_path, text, "g.geo"))
        assert geometry.position_S3.tolist() == [[1, 2, 3], [1, 2, -3.5], [4, 5, 6]]
        assert geometry.string_S.tolist() == [0, 0, 7]
        for old, new, message in (
            ("-3.5", "deep", r"g\.geo, line 6, column 'z': got 'deep'"),
            ("\t7\t0", "\t7", r"g\.geo, line 7: 4 fields"),
        ):
            path = write(tmp_path, text.replace(old, new), "g.geo")
            with pytest.raises(ValueError, match=message):
                DetectorGeometry.from_file(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"PAR1 and no more", "damaged or .* parquet file"),
            (b"\x89PNG\xff", "expected .*CSV, parquet .*geo"),
            (b"\x1f\x8b\x08 cut", "expected .*CSV, parquet .*geo"),
        ],
    )
    def test_no_geometry(self, tmp_path: Path, content: bytes, message: str) -> None:
        pytest.importorskip("pyarrow")
        path = tmp_path / "g.parquet"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            DetectorGeometry.from_file(path)
        assert str(error.value).startswith(str(path))

    def test_a_row_of_parquet_is_named(self, tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        columns = {"x": [1.0, 2.0], "y": [1.0, None], "z": [1.0, 2.0]}
        table = pa.table({**columns, "sensor_id": [0, 1]})
        parquet.write_table(table, tmp_path / "g.parquet")
        with pytest.raises(ValueError, match=r"g\.parquet, row 2, column 'y'"):
            DetectorGeometry.from_file(tmp_path / "g.parquet")


class TestConstruction:
    def test_no_dom(self) -> None:
        with pytest.raises(ValueError, match="'toy' has no DOM"):
            make_geometry(torch.zeros(0, 3, dtype=torch.float64))

    def test_wrong_type(self) -> None:
        with pytest.raises(ValueError, match=r"position_S3 must be .*float64.*float32"):
            make_geometry(torch.zeros(2, 3))

    def test_wrong_shape(self) -> None:
        with pytest.raises(ValueError, match=r"\(2, 3\).*got \(2, 2\)"):
            make_geometry(torch.zeros(2, 2, dtype=torch.float64))

    def test_not_finite(self) -> None:
        position_S3 = torch.zeros(5, 3, dtype=torch.float64)
        position_S3[3, 1] = float("nan")
        with pytest.raises(ValueError, match="position_S3 is not finite at DOM 3"):
            make_geometry(position_S3)
