"""EventSubset and Expression: which events pass, and what is refused."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphnet_icecube2nd.loading.expression import Expression
from graphnet_icecube2nd.loading.subset import EventSubset, default_split, hash_share

LENGTHS = [0, 1, 8, 63, 64, 191, 192, 5000]
COLUMNS: dict[str, Any] = {
    "event_id": np.arange(100, 108, dtype=np.int64),
    "energy": np.array([1, 10, 100, 1000, 1e4, 1e5, np.nan, 50], dtype=np.float32),
    "interaction_type": np.array([1, 2, 1, 2, 3, 1, 2, 1], dtype=np.int8),
    "zenith": np.linspace(0, math.pi, 8),
    "is_track": np.array([1, 0, 1, 0, 1, 0, 1, 0], dtype=bool),
    "flavour": np.array(["numu", "nue"] * 4),
}


class FakeIndex:
    """Shards that are all the same but for their batch and event_id."""

    def __init__(self, *batches: int | None, **columns: NDArray[Any]) -> None:
        self.shard_batches = batches or (None,)
        count = len(self.shard_batches)
        self.shard_offsets = np.arange(count + 1, dtype=np.int64) * len(LENGTHS)
        self.columns = {**COLUMNS, **columns}

    @property
    def event_columns(self) -> tuple[str, ...]:
        own = tuple(name for name in self.columns if name != "event_id")
        return (*own, "event_id", "n_pulses")

    def lengths(self, shard: int) -> NDArray[np.int32]:
        return np.array(LENGTHS, dtype=np.int32)

    def event_column(self, name: str, shard: int) -> NDArray[Any]:
        if name == "event_id":
            return np.asarray(self.columns[name]) + 1000 * shard
        if name == "n_pulses":
            return self.lengths(shard)
        return np.asarray(self.columns[name])


def chosen(**options: Any) -> list[int]:
    return list(EventSubset(**options).local_events(FakeIndex(), 0))


def where(text: str) -> list[int]:
    """The events an expression keeps, event 0 without pulses among them."""
    columns = {**COLUMNS, "n_pulses": np.array(LENGTHS, dtype=np.int32)}
    expression = Expression(text)
    return list(np.flatnonzero(expression.evaluate(columns.__getitem__, 8)))


class TestSubset:
    def test_length_classes(self) -> None:
        assert chosen() == [1, 2, 3, 4, 5, 6, 7]
        assert chosen(length_class="short") == [1, 2, 3]
        assert chosen(length_class="medium") == [4, 5]
        assert chosen(length_class="long") == [6, 7]

    def test_expression(self) -> None:
        text = "energy > 10 and n_pulses >= 8 and interaction_type in (1, 2)"
        assert chosen(expression=text) == [2, 3, 5, 7]
        assert chosen(expression=text, length_class="short") == [2, 3]
        assert chosen(expression="event_id >= 106") == [6, 7]
        assert chosen(expression="n_pulses >= 0") == [1, 2, 3, 4, 5, 6, 7]

    def test_pieces_of_a_shard(self) -> None:
        subset = EventSubset(expression="energy > 50", hash_range=(0.2, 0.9))
        index = FakeIndex()
        whole = subset.mask(index, 0)
        for start in range(9):
            for stop in (*range(start, 9), None):
                piece = subset.mask(index, 0, start, stop)
                assert piece.tolist() == whole[start:stop].tolist()

    def test_batches(self) -> None:
        index = FakeIndex(1, 2, None, 655)
        assert EventSubset(batches=[1, 655]).counts(index).tolist() == [7, 0, 0, 7]
        without = EventSubset(without_batches=[655])
        assert without.counts(index).tolist() == [7, 7, 7, 0]
        assert EventSubset("long").counts(index).dtype == np.int64

    def test_description(self) -> None:
        assert str(EventSubset()) == "total events"
        subset = EventSubset(
            "short",
            expression=" energy > 5 ",
            batches=[3, 1],
            without_batches=[2],
            hash_range=(0, 0.9),
            hash_seed=4,
        )
        assert str(subset) == (
            "short events of 1 to 63 pulses, of batches 1, 3, not of batches 2, with "
            "event_id hashed into 0.0 to 0.9 by seed 4, with energy > 5"
        )
        assert str(EventSubset("long")) == "long events of 192 pulses or more"

    def test_equal_and_pickled(self) -> None:
        subset = EventSubset(expression="energy > 50", batches=[2, 1])
        assert subset == EventSubset(expression="energy > 50", batches=(1, 2))
        again = pickle.loads(pickle.dumps(subset))
        assert again == subset
        index = FakeIndex(1)
        assert again.mask(index, 0).tolist() == subset.mask(index, 0).tolist()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"length_class": "tiny"}, "'tiny'; choose from total, short, medium"),
            ({"hash_range": (0.5, 0.5)}, "must rise within 0 to 1"),
            ({"hash_range": (0.5, 1.5)}, "must rise within 0 to 1"),
            ({"hash_seed": -1}, "hash_seed must be a whole number from 0"),
            ({"expression": "energy >"}, "cannot be read"),
        ],
    )
    def test_refusals(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EventSubset(**options)

    def test_unknown_name(self) -> None:
        subset = EventSubset(expression="n_pulses > 3 and enrgy > 5")
        message = (
            r"unknown name 'enrgy' at character 18 .*did you mean 'energy'\? known are "
            "energy, interaction_type, zenith, is_track, flavour, event_id, n_pulses"
        )
        with pytest.raises(ValueError, match=message):
            subset.mask(FakeIndex(), 0)

    def test_event_id_must_be_whole(self) -> None:
        index = FakeIndex(event_id=np.linspace(0, 1, 8))
        with pytest.raises(ValueError, match=r"event_id must be whole .* float64"):
            EventSubset(hash_range=(0, 0.5)).mask(index, 0)


class TestSplit:
    def test_hash_is_even_and_stable(self) -> None:
        ids = np.arange(100_000)
        share = hash_share(ids, 0)
        assert np.min(share) >= 0
        assert np.max(share) < 1
        counts = np.histogram(share, 10, (0, 1))[0]
        assert counts == pytest.approx(np.full(10, 10_000), rel=0.05)
        assert abs(np.corrcoef(share[:-1], share[1:])[0, 1]) < 0.02
        assert abs(np.corrcoef(share, hash_share(ids, 1))[0, 1]) < 0.02
        few = hash_share(ids[500:600].astype(np.int32), 0)
        assert few.tolist() == share[500:600].tolist()

    def test_hash_is_pinned(self) -> None:
        """A split must stay what it was when a model was trained on it."""
        pinned = [0.7215081806049702, 0.23928447285727472, 0.6627413876392583]
        assert hash_share(np.array([0, 1, -1]), 7).tolist() == pinned
        # SplitMix64's first number from 0 is known; an event_id equal to the mixed
        # seed, here that number, brings it about a second time.
        first = 0xE220A8397B1DCDAF
        same = np.array([first], dtype=np.uint64)
        assert hash_share(same, 0).tolist() == [(first >> 11) / 2**53]

    def test_by_hash(self) -> None:
        index = FakeIndex(*[None] * 200)
        train, valid = default_split(index, seed=3, fraction=0.2)
        together = 0
        for shard in range(200):
            masks = train.mask(index, shard), valid.mask(index, shard)
            assert not (masks[0] & masks[1]).any()
            together += int((masks[0] | masks[1]).sum())
        assert together == 1400
        assert valid.counts(index).sum() == pytest.approx(280, abs=50)
        assert str(valid).endswith("into 0.8 to 1.0 by seed 3")

    @pytest.mark.parametrize(
        "batches", [(None,), (1, 2), (655, 656), (659,), (None, 3)]
    )
    def test_where_there_is_no_published_one(self, batches: Any) -> None:
        train, valid = default_split(FakeIndex(*batches))
        assert (train.hash_range, valid.hash_range) == ((0, 0.9), (0.9, 1))

    @pytest.mark.parametrize("batches", [(1, 655), (654, 657, 659, 660), (None, 656)])
    def test_published(self, batches: Any) -> None:
        index = FakeIndex(*batches)
        train, valid = default_split(index)
        held = [7 * (b is not None and 655 <= b <= 659) for b in batches]
        assert valid.counts(index).tolist() == held
        assert train.counts(index).tolist() == [7 - count for count in held]
        assert str(valid) == "total events, of batches 655, 656, 657, 658, 659"
        short = replace(train, length_class="short").counts(index)
        assert np.max(short) == 3

    def test_border(self) -> None:
        """An event that hashes to the border is in the upper part alone."""
        index = FakeIndex()
        border = float(hash_share(COLUMNS["event_id"], 0)[5])
        below = EventSubset(hash_range=(0, border)).mask(index, 0)
        above = EventSubset(hash_range=(border, 1)).mask(index, 0)
        assert not below[5]
        assert above[5]

    def test_fraction(self) -> None:
        with pytest.raises(ValueError, match=r"fraction .* 1\.5"):
            default_split(FakeIndex(), fraction=1.5)


class TestExpression:
    @pytest.mark.parametrize(
        ("text", "events"),
        [
            ("energy > 100", [3, 4, 5]),
            ("100 <= energy < 1e5", [2, 3, 4]),
            ("not energy > 100", [0, 1, 2, 6, 7]),
            ("energy != energy", [6]),
            ("energy < 5 or energy > 5e4", [0, 5]),
            ("interaction_type in (1, 3) and is_track", [0, 2, 4]),
            ("interaction_type not in [1, -3]", [1, 3, 4, 6]),
            ("interaction_type in ()", []),
            ("interaction_type * 100 == 300", [4]),
            ("n_pulses ** 2 == 4096", [4]),
            ("n_pulses % 2 == 1 and n_pulses // 63 == 1", [3]),
            ("log10(energy) > 2.5", [3, 4, 5]),
            ("cos(zenith) < -0.9 and abs(-zenith) > 3", [7]),
            ("sqrt(-energy + 1) == 0 or sin(zenith) > 0.95", [0, 3, 4]),
            ("flavour == 'nue' and event_id > 103", [5, 7]),
            ("flavour in ('numu', 'nutau') and +energy < 50", [0]),
            ("is_track == True and is_track + 1 == 2", [0, 2, 4, 6]),
            ("energy / 0 > 1 and (energy\n> 1e4)", [5]),
            ("n_pulses < 9**9**9", list(range(8))),
            ("n_pulses > -5 - 3", list(range(8))),
        ],
    )
    def test_values(self, text: str, events: list[int]) -> None:
        assert where(text) == events

    @settings(deadline=None)
    @given(
        first=st.sampled_from(["a", "b", "2", "-1", "0.5"]),
        op=st.sampled_from(["+", "-", "*", "/"]),
        second=st.sampled_from(["a", "b", "3", "7.25"]),
        compare=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        limit=st.integers(-3, 3),
        values=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    )
    def test_as_python_has_it(
        self, first: str, op: str, second: str, compare: str, limit: int, values: Any
    ) -> None:
        text = f"{first} {op} {second} {compare} a - {limit}"
        columns: dict[str, NDArray[Any]] = {
            "a": np.array(values, dtype=np.uint8),
            "b": np.array(values) / 2,
        }
        found = Expression(text).evaluate(columns.__getitem__, len(values))
        wanted = [eval(text, {"a": a, "b": a / 2}) for a in values]
        assert found.tolist() == wanted

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("__import__('os')", r"\"__import__\('os'\)\" at character 1 .*functions"),
            ("energy > 1 and exec('1')", "at character 16 .*abs, log10"),
            ("energy.__class__ == 1", r"'energy.__class__' at character 1 .*Attribute"),
            ("(lambda: 1)() == 1", "is not allowed; functions"),
            ("(lambda: energy) == 1", r"not allowed \(Lambda\)"),
            ("[e for e in energy] == 1", r"not allowed \(ListComp\)"),
            ("energy[0] > 1", r"'energy\[0\]' at character 1 .*Subscript"),
            ("(e := energy) > 1", "NamedExpr"),
            ("f'{energy}' == '1'", "JoinedStr"),
            ("energy > 1 if is_track else is_track", "IfExp"),
            ("energy & 1 == 1", "BinOp"),
            ("~is_track", "UnaryOp"),
            ("abs(energy, 1) > 1", "functions .*abs, log10"),
            ("abs(x=energy) > 1", "functions .*abs, log10"),
            ("abs(*energy) > 1", "Starred"),
            ("energy is 1", "compare with =="),
            ("energy in zenith", "'zenith' at character 11 .*tuple or list"),
            ("energy in (1, zenith)", "'zenith' at character 15 .*a number or text"),
            ("energy in (1, 2) in (3, 4)", "chains `in`"),
            ("energy > None", "'None' .*a number, text"),
            ("energy > 1j", "'1j' .*a number, text"),
            ("energy > b'1'", "a number, text"),
            ("n_pulses < 9223372036854775808", "does not fit into 64 bits"),
            ("energy > (1, 2)", "Tuple"),
            ("energy >", "cannot be read at character"),
            ("energy > 1; energy", "cannot be read"),
            ("import os", "cannot be read"),
            ("", "cannot be read"),
            ("energy > 1\0", "cannot be read"),
            ("-" * 70 + "energy > 1", "nests deeper than 60"),
            ("(" * 900 + "energy" + ")" * 900 + " > 1", "cannot be read"),
            ("energy > 1 " * 200, "at most 2000 characters"),
            (7, "a text, .* 7"),
        ],
    )
    def test_what_is_not_known(self, text: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Expression(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("energy", "condition, .* numbers"),
            ("9**9**9", "condition, .* numbers"),
            ("1 < 2", "name a column"),
            ("True", "name a column"),
            ("energy and is_track", "'energy' at character 1 .* condition"),
            ("not energy", "'energy' at character 5 .* condition"),
            ("flavour > 1", "'flavour > 1' .*compares a text with a number"),
            ("energy in (1, 'a')", "compares a text with a number"),
            ("flavour + 1 == 2", "'flavour' .* a text.* a number"),
            ("abs(flavour) == 2", "'flavour' .* a text.* a number"),
            ("100 // n_pulses == 1", "by zero"),
            ("100 % 0 == energy", "by zero"),
            ("event_id * 10000000000000000000000 > 1", "does not fit"),
            ("event_id * 1000000000 * 1000000000 > 1", "does not fit into 64 bits"),
        ],
    )
    def test_what_does_not_fit_together(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            where(text)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros((8, 2)), r"column 'a' .*\(8,\), .*\(8, 2\)"),
            (np.zeros(8, dtype=complex), "column 'a' .* complex128"),
            (np.full(8, 2**63, dtype=np.uint64), "do not fit into int64"),
            (np.array([None] * 8), "column 'a' .* object"),
        ],
    )
    def test_columns_of_another_kind(self, values: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Expression("a == 1").evaluate(lambda name: values, 8)

    def test_names(self) -> None:
        expression = Expression("b > 1 and log10(a) < b")
        assert expression.names == ("b", "a")
        expression.check_names(["a", "b", "c"])
        with pytest.raises(ValueError, match=r"unknown name 'a' at .*; known are b$"):
            expression.check_names(["b"])
        for text in (np.array([b"x", b"y"]), np.array(["x", "y"], dtype=object)):
            found = Expression("t == 'y'").evaluate(lambda name, text=text: text, 2)
            assert found.tolist() == [False, True]
