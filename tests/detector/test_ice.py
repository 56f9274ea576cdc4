from __future__ import annotations

import pickle
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def toy() -> IceModel:
    """Three rows around the detector centre, a new model for each test."""
    return IceModel(
        depth_N=f64(1848.07, 1948.07, 2048.07),
        scattering_length_N=f64(10, 20, 40),
        absorption_length_N=f64(100, 300, 200),
    )


@pytest.fixture
def icecube() -> IceModel:
    """The ice at IceCube, as a model of its own that has not warned yet."""
    return replace(IceModel.icecube())


class TestHandComputed:
    def test_lengths(self, toy: IceModel) -> None:
        length_T2 = toy.lengths_at(f64(100, 50, 0, -75, -100))
        assert length_T2.dtype == torch.float64
        torch.testing.assert_close(
            length_T2,
            torch.stack([f64(10, 15, 20, 35, 40), f64(100, 200, 300, 225, 200)], dim=1),
        )

    def test_scaled(self, toy: IceModel) -> None:
        """With the quartiles of IceCube's table, whatever the table."""
        table = IceModel.icecube()
        low, median, high = np.percentile(table.scattering_length_N, [25, 50, 75])
        scaled_T2 = toy.scaled_at(torch.tensor([100.0, 50.0, 0.0, -75.0]))
        assert scaled_T2.dtype == torch.float32
        wanted_T = (np.array([10, 15, 20, 35]) - median) / (high - low)
        np.testing.assert_allclose(scaled_T2[:, 0], wanted_T, atol=2e-6)
        low, median, high = np.percentile(table.absorption_length_N, [25, 50, 75])
        wanted_T = (np.array([100, 200, 300, 225]) - median) / (high - low)
        np.testing.assert_allclose(scaled_T2[:, 1], wanted_T, atol=2e-6)

    def test_scaled_mirrored(self, toy: IceModel) -> None:
        # z = +48.07 is read at depth 1998.07, in the middle of the lower layer.
        mirrored_T2 = toy.scaled_at(f64(48.07, -1.93), profile="mirrored")
        torch.testing.assert_close(mirrored_T2, toy.scaled_at(f64(-50.0, 0.0)))

    def test_clearer_ice_is_seen(self, toy: IceModel) -> None:
        clearer = replace(toy, absorption_length_N=1.1 * toy.absorption_length_N)
        z_T = f64(100, 0, -50)
        before_T2, after_T2 = toy.scaled_at(z_T), clearer.scaled_at(z_T)
        assert torch.equal(before_T2[:, 0], after_T2[:, 0])
        assert bool((after_T2[:, 1] > before_T2[:, 1] + 0.1).all())

    def test_copies_are_itself(self, toy: IceModel) -> None:
        """GraphNeT copies what reads the data into every dataset."""
        assert deepcopy(toy) is toy

    def test_shapes(self, toy: IceModel) -> None:
        assert toy.scaled_at(torch.zeros(0)).shape == (0, 2)
        assert toy.lengths_at(torch.zeros(5, 7)).shape == (5, 7, 2)
        assert toy.scaled_at(torch.zeros(3, dtype=torch.int64)).shape == (3, 2)

    def test_nan_stays_nan(self, toy: IceModel) -> None:
        scaled_T2 = toy.scaled_at(f64(float("nan"), 0))
        assert scaled_T2.isnan().tolist() == [[True, True], [False, False]]

    def test_unknown_profile(self, toy: IceModel) -> None:
        with pytest.raises(ValueError, match=r"'published'.*correct, mirrored"):
            toy.scaled_at(f64(0), profile="published")


class TestIceCube:
    def test_table(self, icecube: IceModel) -> None:
        assert len(icecube.depth_N) == 110
        assert (icecube.depth_N[0], icecube.depth_N[-1]) == (1398.4, 2488.4)
        assert icecube.scattering_length_N[0] == 13.2
        assert icecube.absorption_length_N[-1] == 185.2

    def test_dust_layer(self, icecube: IceModel) -> None:
        # The dirtiest ice lies at a depth of two kilometres: below the centre, and by
        # the published mistake above it.
        z_T = torch.linspace(-500, 500, 1001)
        dust_z = float(z_T[icecube.scaled_at(z_T)[:, 1].argmin()])
        assert -130 < dust_z < -80
        mirrored_T2 = icecube.scaled_at(z_T, profile="mirrored")
        assert float(z_T[mirrored_T2[:, 1].argmin()]) == pytest.approx(-dust_z, abs=3)

    def test_covers_every_dom(self, icecube: IceModel) -> None:
        z_S = DetectorGeometry.icecube86().position_S3[:, 2]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            icecube.scaled_at(z_S)
            icecube.scaled_at(z_S, profile="mirrored")

    def test_mirrored_is_the_published_interpolation(self, icecube: IceModel) -> None:
        # The published chain once more in numpy: positions in float32 and over 500,
        # the table at (depth - 1950) / 500.
        z_S = DetectorGeometry.icecube86().position_S3[:, 2]
        wanted = []
        for length_N in (icecube.scattering_length_N, icecube.absorption_length_N):
            low, median, high = np.percentile(length_N.numpy(), [25, 50, 75])
            wanted.append(
                np.interp(
                    z_S.numpy().astype(np.float32) / np.float32(500),
                    (icecube.depth_N.numpy() - 1950) / 500,
                    (length_N.numpy() - median) / (high - low),
                )
            )
        scaled_S2 = icecube.scaled_at(z_S, profile="mirrored")
        # float32 holds z / 500 to 6e-8, and the steepest step is 2 per 10 m.
        np.testing.assert_allclose(
            scaled_S2.numpy(), np.stack(wanted, 1), rtol=0, atol=1e-5
        )

    def test_is_read_once(self) -> None:
        assert IceModel.icecube() is IceModel.icecube()

    @pytest.mark.data
    def test_is_the_table_of_the_competition(
        self, icecube: IceModel, shared_dir: Path
    ) -> None:
        path = shared_dir / "data/graphnet/ice_transparency.txt"
        if not path.exists():
            pytest.skip(f"{path} is absent")
        theirs = IceModel.from_file(path)
        assert torch.equal(theirs.depth_N, icecube.depth_N)
        assert torch.equal(theirs.scattering_length_N, icecube.scattering_length_N)
        assert torch.equal(theirs.absorption_length_N, icecube.absorption_length_N)

    @pytest.mark.data
    def test_is_the_table_of_graphnet(
        self, icecube: IceModel, shared_dir: Path
    ) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        path = shared_dir / (
            "data/graphnet/data/ice_properties/ice_transparency.parquet"
        )
        if not path.exists():
            pytest.skip(f"{path} is absent")
        table = pandas.read_parquet(path)
        assert table.depth.tolist() == icecube.depth_N.tolist()
        assert table.scattering_len.tolist() == icecube.scattering_length_N.tolist()
        assert table.absorption_len.tolist() == icecube.absorption_length_N.tolist()


class TestOutsideTheTable:
    def test_clamped_and_said_once(self, toy: IceModel) -> None:
        with pytest.warns(UserWarning, match=r"2 of 3 DOMs or pulses") as record:
            length_T2 = toy.lengths_at(f64(400, 0, -150.25))
        assert len(record) == 1
        message = str(record[0].message)
        assert "at z from -150.25 to 400.00 m" in message
        assert "covers z from -100.00 to 100.00 m" in message
        assert record[0].filename == __file__
        assert length_T2.tolist() == [[10, 100], [20, 300], [40, 200]]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again_T2 = toy.scaled_at(f64(400, -150.25), profile="mirrored")
        torch.testing.assert_close(again_T2, toy.scaled_at(f64(-100.0, 100.0)))

    def test_mirrored_range(self, toy: IceModel) -> None:
        with pytest.warns(UserWarning, match=r"z from -101\.93 to 98\.07 m \(profile"):
            toy.scaled_at(f64(99), profile="mirrored")

    def test_every_model_warns_for_itself(self, toy: IceModel) -> None:
        with pytest.warns(UserWarning, match="outside the ice table"):
            toy.scaled_at(f64(500))
        with pytest.warns(UserWarning, match="outside the ice table"):
            replace(toy).scaled_at(f64(500))

    def test_edges_are_inside(self) -> None:
        edges = IceModel(
            depth_N=f64(1448.07, 2448.07),
            scattering_length_N=f64(1, 2),
            absorption_length_N=f64(1, 2),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            length_T2 = edges.lengths_at(f64(500, -500))
        torch.testing.assert_close(length_T2, torch.stack([f64(1, 2), f64(1, 2)], 1))


class TestFromFile:
    @pytest.mark.parametrize("gap", ["\t", "  ", ","])
    @pytest.mark.parametrize("word", ["len", "length"])
    def test_formats(self, tmp_path: Path, gap: str, word: str) -> None:
        header = gap.join(["depth", f"scattering_{word}", f"absorption_{word}"])
        rows = [gap.join(["1000.5", "13.2", "45"]), gap.join(["1010", "14", "5e1"])]
        path = tmp_path / "ice.txt"
        path.write_text("\n".join(["# made by hand", header, *rows, ""]))
        ice = IceModel.from_file(path)
        assert ice.depth_N.tolist() == [1000.5, 1010]
        assert ice.scattering_length_N.tolist() == [13.2, 14]
        assert ice.absorption_length_N.tolist() == [45, 50]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "a header and at least one row"),
            (["1 2 3"], "two rows"),
            (["1 2 3", "2 3"], "line 3: 2 fields, but the header has 3"),
            (["1 2 3", "2 x 3"], "line 3, column 'scattering_len': got 'x'"),
            (["1 2 3", "2 2 nan"], "line 3, column 'absorption_len': got 'nan'"),
            (["1 2 -3", "2 2 3"], "line 2, column 'absorption_len': got '-3', allowed"),
            (["1 2 3", "1 2 3"], r"line 3, column 'depth': got 1\.0, allowed: above 1"),
            (["5 2 3", "7 2 3", "6 2 3"], "line 4, column 'depth': got 6"),
        ],
    )
    def test_malformed_file(
        self, tmp_path: Path, rows: list[str], message: str
    ) -> None:
        path = tmp_path / "ice.txt"
        path.write_text("\n".join(["depth scattering_len absorption_len", *rows]))
        with pytest.raises(ValueError, match=message) as error:
            IceModel.from_file(path)
        assert str(error.value).startswith(str(path))

    def test_missing_column(self, tmp_path: Path) -> None:
        path = tmp_path / "ice.txt"
        path.write_text("depth scattering_len\n1 2\n2 3\n")
        with pytest.raises(ValueError, match="no column 'absorption_len'"):
            IceModel.from_file(path)


class TestConstruction:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"depth_N": f64(3, 2, 1)}, "depth_N must be finite and increasing"),
            ({"depth_N": f64(1, float("nan"), 3)}, "depth_N must be finite"),
            ({"depth_N": f64(1)}, r"depth_N must be \(2,\)"),
            ({"scattering_length_N": f64(1, 2)}, r"must be \(3,\).*got \(2,\)"),
            ({"scattering_length_N": f64(1, 0, 2)}, "must be finite and above 0"),
            ({"absorption_length_N": torch.ones(3)}, "float64, got .*float32"),
        ],
    )
    def test_bad_values(
        self, toy: IceModel, change: dict[str, Tensor], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            replace(toy, **change)

    def test_survives_pickling(self, toy: IceModel) -> None:
        again = pickle.loads(pickle.dumps(toy))
        assert torch.equal(again.lengths_at(f64(5)), toy.lengths_at(f64(5)))
