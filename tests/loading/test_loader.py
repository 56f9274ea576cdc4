"""The loader: every batch once, in order, whoever reads, resumable at any batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, PackedBatch, prepare
from graphnet_icecube2nd.loading.loader import EventLoader
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.loading.sampler import EventSampler


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, make_kaggle_folder: Callable[..., Path]
) -> EventStore:
    folder = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    batches = {n: rng.integers(1, 260, 60).tolist() for n in (1, 2)}
    make_kaggle_folder(folder / "in", batches)
    prepare(folder / "in", folder / "store", workers=1, shard_pulses=3000)
    return EventStore(folder / "store")


def make_loader(
    store: EventStore, sampling: dict[str, Any] | None = None, **options: Any
) -> EventLoader:
    sampling = {"batch_size": 7, "num_sub_epochs": 2, **(sampling or {})}
    sampler = EventSampler(store, **sampling)
    return EventLoader(EventReader(store), sampler, block_batches=3, **options)


def seen(batches: Sequence[PackedBatch]) -> list[tuple[list[int], float]]:
    """Which events, and what was shown of them."""
    return [(b.event_id.tolist(), float(b.features.sum())) for b in batches]


def test_an_epoch_shows_every_event_once(store: EventStore) -> None:
    loader = make_loader(store)
    first, second = list(loader), list(loader)
    ids = [i for batch in first + second for i in batch.event_id.tolist()]
    assert sorted(ids) == sorted(
        np.concatenate(
            [store.event_column("event_id", s) for s in range(len(store.shards))]
        ).tolist()
    )
    assert seen(list(loader)) != seen(first), "another epoch, another order"


def test_loaders_of_one_sampler_count_for_themselves(store: EventStore) -> None:
    sampler = EventSampler(store, batch_size=7)
    one, two = (EventLoader(EventReader(store), sampler) for _ in range(2))
    expected = seen(list(make_loader(store, {"num_sub_epochs": 1})))
    pairs = list(zip(one, two, strict=True))
    assert seen([a for a, _ in pairs]) == seen([b for _, b in pairs]) == expected


def test_length_is_what_comes(store: EventStore) -> None:
    loader = make_loader(store)
    for _ in range(4):
        expected = len(loader)
        assert len(list(loader)) == expected


@pytest.mark.parametrize(
    "options",
    [{"prefetch": False}, {"prefetch": True}, {"num_workers": 1}, {"num_workers": 2}],
    ids=["plain", "a thread", "one worker", "two workers"],
)
def test_who_reads_does_not_matter(store: EventStore, options: dict[str, Any]) -> None:
    wanted, loader = make_loader(store), make_loader(store, **options)
    for _ in range(3):
        assert seen(list(loader)) == seen(list(wanted))


@pytest.mark.parametrize(
    "options", [{"prefetch": False}, {"prefetch": True}, {"num_workers": 1}]
)
def test_resumes_at_any_batch(store: EventStore, options: dict[str, Any]) -> None:
    """The state counts what was handed out, not what was read ahead."""
    calm = make_loader(store)
    expected = seen([batch for _ in range(3) for batch in calm])
    for stop in (0, 1, 5, len(calm) - 1, len(calm), len(calm) + 4):
        loader, had = make_loader(store, **options), []
        while len(had) < stop:
            had += seen(list(islice(loader, stop - len(had))))
        state = loader.state_dict()
        resumed = make_loader(store, **options)
        resumed.load_state_dict(state)
        while len(had) < len(expected):
            had += seen(list(resumed))
        assert had[: len(expected)] == expected


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("prefetch", [None, False, True])
def test_a_thread_reads_where_there_is_a_gpu(
    store: EventStore,
    has_gpu: bool,
    prefetch: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a model on the CPU a further thread would slow OpenMP down."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    batches = iter(make_loader(store, prefetch=prefetch))
    next(batches)
    names = [thread.name for thread in threading.enumerate()]
    threaded = any(name.startswith("event-reader") for name in names)
    assert threaded == (has_gpu if prefetch is None else prefetch)
    batches.close()


def test_one_left_in_the_middle_is_over(store: EventStore) -> None:
    loader, wanted = make_loader(store), make_loader(store)
    list(islice(loader, 2))
    list(wanted)
    assert seen(list(loader)) == seen(list(wanted))


@pytest.mark.parametrize("size", [5, 9, 12])
def test_iterations_of_one_length(store: EventStore, size: int) -> None:
    """As trainers want them: nothing is left out where sub-epochs differ."""
    sampling = {"batch_size": None, "pulse_budget": 900, "num_sub_epochs": 3}
    calm = make_loader(store, sampling)
    lengths, wanted = [], []
    for _ in range(9):
        lengths.append(len(calm))
        wanted += seen(list(calm))
    assert len(set(lengths)) > 1
    loader = make_loader(store, sampling, iteration_batches=size)
    assert len(loader) == size
    had = [seen(list(loader)) for _ in range(4)]
    assert [len(part) for part in had] == 4 * [size]
    assert list(chain(*had)) == wanted[: 4 * size]
    loader = make_loader(store, sampling, iteration_batches=size)
    had = [seen(list(islice(loader, 2))) for _ in range(4)]
    assert list(chain(*had)) == wanted[:8], "one that is left goes on at the next batch"
    for stop in (1, size - 1, size, size + 3, 2 * size + 1):
        loader, taken = make_loader(store, sampling, iteration_batches=size), []
        while len(taken) < stop:
            taken += seen(list(islice(loader, stop - len(taken))))
        resumed = make_loader(store, sampling, iteration_batches=size)
        resumed.load_state_dict(loader.state_dict())
        rest = seen(list(resumed))
        assert len(rest) == size - stop % size
        assert taken + rest == wanted[: stop + len(rest)]


def test_torchs_generator_is_left_alone(store: EventStore) -> None:
    """Workers or not, what a model draws while it trains is the same."""
    before = torch.get_rng_state()
    list(make_loader(store, num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_set_epoch(store: EventStore) -> None:
    loader, wanted = make_loader(store), make_loader(store)
    for _ in range(3):
        list(wanted)
    loader.set_epoch(1, 1)
    assert seen(list(loader)) == seen(list(wanted))


def test_validation_shows_the_same_each_time(store: EventStore) -> None:
    sampling = {"shuffle": False, "num_sub_epochs": 1}
    loader = make_loader(store, sampling, always_first_epoch=True)
    assert seen(list(loader)) == seen(list(loader))
    list(islice(loader, 2))
    assert len(list(loader)) == len(loader)


def test_published_sub_epochs_show_other_pulses(store: EventStore) -> None:
    """They may draw an event twice an epoch; it is cut anew then."""
    sampling = {"num_sub_epochs": 2, "sub_epochs": "published", "batch_size": 60}
    loader = EventLoader(
        EventReader(store, max_pulses=2), EventSampler(store, max_pulses=2, **sampling)
    )
    shown: dict[int, set[tuple[float, ...]]] = {}
    for _ in range(2):
        for batch in loader:
            times = batch.column("time").split(batch.lengths.tolist())
            for event, time in zip(batch.event_id.tolist(), times, strict=True):
                shown.setdefault(event, set()).add(tuple(time.tolist()))
    assert any(len(times) > 1 for times in shown.values())


def test_state_of_other_data_is_refused(store: EventStore) -> None:
    state = make_loader(store).state_dict()
    other = make_loader(store, {"batch_size": 8})
    with pytest.raises(ValueError, match="batch_size was 7 and is 8"):
        other.load_state_dict(state)


def test_bad_options(store: EventStore) -> None:
    for options in ({"num_workers": -1}, {"block_batches": 0}):
        sampler = EventSampler(store, batch_size=2)
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            EventLoader(EventReader(store), sampler, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iteration_batches must be"):
        make_loader(store, iteration_batches=0)
