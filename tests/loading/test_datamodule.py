"""The data module: splits, shares of ranks, and Lightning's own loop."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import DeepIce, EventDataModule, EventStore, PackedBatch
from graphnet_icecube2nd import VonMisesFisherLoss as Loss
from graphnet_icecube2nd.loading.subset import EventSubset

MakeStore = Callable[..., EventStore]
LENGTHS = [30, 70, 200, 12, 64, 191, 192, 63] * 6


def ids(loader: Any) -> list[int]:
    return [i for batch in loader for i in batch.event_id.tolist()]


def test_published_batches_validate(make_store: MakeStore) -> None:
    data = EventDataModule(
        make_store({1: LENGTHS, 655: LENGTHS[:9], 659: LENGTHS[:5]}), num_sub_epochs=1
    )
    assert sorted(ids(data.train_dataloader())) == [1000 + 3 * n for n in range(48)]
    expected = [655000 + 3 * n for n in range(9)] + [659000 + 3 * n for n in range(5)]
    assert sorted(ids(data.val_dataloader())) == expected


def test_other_data_are_split_by_hash(make_store: MakeStore) -> None:
    data = EventDataModule(make_store({1: LENGTHS * 5}), num_sub_epochs=1)
    train, validation = ids(data.train_dataloader()), ids(data.val_dataloader())
    assert len(train) + len(validation) == 240
    assert not set(train) & set(validation)
    assert 10 <= len(validation) <= 40
    assert ids(data.val_dataloader()) == validation, "in a fixed order"
    other = EventDataModule(data.store, seed=9, num_sub_epochs=1)
    assert set(ids(other.val_dataloader())) == set(validation)
    assert ids(other.train_dataloader()) != train
    split = EventDataModule(data.store, split_seed=9)
    assert set(ids(split.val_dataloader())) != set(validation)


@pytest.mark.parametrize(
    ("length_class", "allowed"),
    [("short", {12, 30, 63}), ("medium", {64, 70, 191}), ("long", {192, 200})],
)
def test_length_classes(
    make_store: MakeStore, length_class: str, allowed: set[int]
) -> None:
    data = EventDataModule(
        make_store({1: LENGTHS}), length_class=length_class, num_sub_epochs=1
    )
    for loader in (data.train_dataloader(), data.val_dataloader()):
        lengths = {n for batch in loader for n in batch.n_pulses.tolist()}
        assert lengths <= allowed
    assert {n for b in data.train_dataloader() for n in b.n_pulses.tolist()} == allowed


def test_users_expression(make_store: MakeStore) -> None:
    data = EventDataModule(
        make_store({1: LENGTHS}),
        events="n_pulses >= 64 and zenith < 1.5",
        truth=("zenith",),
        num_sub_epochs=1,
    )
    batches = list(data.train_dataloader())
    assert batches
    for batch in batches:
        assert int(batch.n_pulses.min()) >= 64
        assert float(batch.truth["zenith"].max()) < 1.5


def test_users_split(make_store: MakeStore) -> None:
    store = make_store({1: LENGTHS, 2: LENGTHS})
    one, two = EventSubset(batches={1}), EventSubset(batches={2})
    data = EventDataModule(store, train=two, validation=one, num_sub_epochs=1)
    assert min(ids(data.train_dataloader())) >= 2000
    with pytest.raises(ValueError, match="event 2000 "):
        EventDataModule(store, train=two, validation=EventSubset())
    with pytest.raises(ValueError, match="both train and validation"):
        EventDataModule(store, train=two)
    with pytest.raises(ValueError, match=r"'long'.*'short'"):
        EventDataModule(
            store,
            train=EventSubset(length_class="long", batches={1}),
            validation=two,
            length_class="short",
        )


def test_prediction_takes_every_event_in_order(make_store: MakeStore) -> None:
    store = make_store({1: LENGTHS, 655: LENGTHS})
    data = EventDataModule(store, batch_size=5)
    expected = [
        i for s in range(len(store.shards)) for i in store.event_column("event_id", s)
    ]
    assert ids(data.predict_dataloader()) == expected


def test_pulse_budget(make_store: MakeStore) -> None:
    data = EventDataModule(make_store({1: LENGTHS}), pulse_budget=400, num_sub_epochs=1)
    for batch in data.train_dataloader():
        assert len(batch.features) <= 400
    with pytest.raises(ValueError, match="batch_size"):
        EventDataModule(data.store, pulse_budget=400, batch_size=3).train_dataloader()


class TestLabels:
    @pytest.fixture
    def broken(self, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A store where every fifth event has a zenith that cannot be."""
        store = make_store({1: LENGTHS})
        column = EventStore.event_column

        def spoilt(self: EventStore, name: str, shard: int) -> Any:
            values = column(self, name, shard)
            if name == "zenith":
                values = values.copy()
                values[::5] = -1.0
            return values

        monkeypatch.setattr(EventStore, "event_column", spoilt)
        return store

    def test_events_without_any_are_left_out(self, broken: EventStore) -> None:
        options: dict[str, Any] = {"num_sub_epochs": 1, "validation_fraction": 0.3}
        data = EventDataModule(broken, **options)
        used = ids(data.train_dataloader()) + ids(data.val_dataloader())
        assert sorted(used) == [1000 + 3 * n for n in range(48) if n % 5]
        counts = data.train_labels, data.validation_labels
        assert sum(count.num_events for count in counts) == 48
        assert sum(count.left_out for count in counts) == 10
        assert data.train_labels.unlabelled == (data.train_labels.left_out,)
        assert "with a label of direction" in str(data.train_events)
        everything = EventDataModule(broken, labels=(), **options)
        used = ids(everything.train_dataloader()) + ids(everything.val_dataloader())
        assert len(used) == 48

    def test_an_event_with_one_of_several_groups_is_used(
        self, broken: EventStore
    ) -> None:
        data = EventDataModule(
            broken, labels=(("direction",), ("n_pulses", "azimuth")), num_sub_epochs=1
        )
        counts = data.train_labels
        assert counts.left_out == 0
        assert counts.unlabelled[0] > 0
        assert counts.unlabelled[1] == 0
        assert data.train_events.labelled == ()
        needs_both = EventDataModule(
            broken, labels=(("n_pulses", "direction"),), num_sub_epochs=1
        )
        assert needs_both.train_labels.left_out == counts.unlabelled[0]

    def test_sampling_stays_the_same_where_all_have_labels(
        self, make_store: MakeStore
    ) -> None:
        """Checkpoints of earlier releases must go on."""
        store = make_store({1: LENGTHS})
        plain = EventDataModule(store, labels=(), num_sub_epochs=2)
        asked = EventDataModule(store, labels=("direction",), num_sub_epochs=2)
        assert asked.train_events == plain.train_events
        states = [d.train_dataloader().state_dict() for d in (plain, asked)]
        assert states[0] == states[1]
        assert "label" not in states[0]["options"]["subset"]


def test_ranks_share_what_one_would_see(make_store: MakeStore) -> None:
    """Two ranks of 4 see, step by step, the batch of 8 of one."""
    store = make_store({1: LENGTHS})
    alone = EventDataModule(store, batch_size=8, num_sub_epochs=1)
    loaders = []
    for rank in range(2):
        data = EventDataModule(store, batch_size=4, num_sub_epochs=1)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        loaders.append(data.train_dataloader())
    assert len({len(loader) for loader in (*loaders, alone.train_dataloader())}) == 1
    for one, two, both in zip(*loaders, alone.train_dataloader(), strict=True):
        parts = one.event_id.tolist() + two.event_id.tolist()
        assert sorted(parts) == sorted(both.event_id.tolist())


@pytest.mark.slow
def test_real_ranks(make_store: MakeStore, tmp_path: Path) -> None:
    """Two processes of torch.distributed: each event once, as many batches each."""
    store = make_store({1: [*LENGTHS, 5]})
    code = (
        "import json, sys, torch.distributed as distributed\n"
        "from graphnet_icecube2nd import EventDataModule\n"
        "if __name__ == '__main__':\n"
        "    store, meeting, rank = sys.argv[1:]\n"
        "    distributed.init_process_group('gloo', init_method='file://' + meeting,\n"
        "                                   rank=int(rank), world_size=2)\n"
        "    data = EventDataModule(store, batch_size=4, num_sub_epochs=2)\n"
        "    loader = data.train_dataloader()\n"
        "    print(json.dumps([[b.event_id.tolist() for b in loader]\n"
        "                      for _ in range(2)]))\n"
        "    distributed.destroy_process_group()\n"
    )
    (tmp_path / "rank.py").write_text(code)
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "rank.py", store.path, tmp_path / "meet", rank],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [
        json.loads(process.communicate()[0].splitlines()[-1]) for process in processes
    ]
    assert [len(part) for part in told[0]] == [len(part) for part in told[1]]
    seen = sorted(i for rank in told for part in rank for batch in part for i in batch)
    data = EventDataModule(store, batch_size=4, num_sub_epochs=1)
    assert seen == sorted(ids(data.train_dataloader()))


class TestLightning:
    @pytest.fixture
    def lightning(self) -> Any:
        return pytest.importorskip("pytorch_lightning")

    def module(self, lightning: Any) -> Any:
        class Direction(lightning.LightningModule):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.model = DeepIce(dim=32, dim_base=16, depth=1, head_size=16)
                self.loss = Loss()
                self.events: list[list[int]] = []
                self.validated: list[int] = []

            def training_step(self, batch: PackedBatch, index: int) -> torch.Tensor:
                self.events.append(batch.event_id.tolist())
                assert batch.truth is not None
                return self.loss(self.model(batch), batch.truth["direction"])

            def validation_step(self, batch: PackedBatch, index: int) -> None:
                self.validated += batch.event_id.tolist()

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=1e-3)

        return Direction()

    def trainer(self, lightning: Any, folder: Path, **options: Any) -> Any:
        return lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            **{"enable_checkpointing": False, **options},
        )

    def test_trains_and_validates(
        self, lightning: Any, make_store: MakeStore, tmp_path: Path
    ) -> None:
        data = EventDataModule(make_store({1: LENGTHS}), batch_size=8, num_sub_epochs=2)
        module = self.module(lightning)
        self.trainer(lightning, tmp_path, max_epochs=2).fit(module, datamodule=data)
        trained = [i for batch in module.events for i in batch]
        expected = EventDataModule(data.store, batch_size=8, num_sub_epochs=1)
        assert sorted(trained) == sorted(ids(expected.train_dataloader()))
        assert module.validated == 2 * ids(data.val_dataloader())

    @pytest.mark.parametrize("size", [{"pulse_budget": 700}, {"batch_size": 10}])
    def test_sub_epochs_of_different_lengths(
        self,
        lightning: Any,
        make_store: MakeStore,
        tmp_path: Path,
        size: dict[str, int],
    ) -> None:
        """Lightning asks once for the number of batches: none may be left out."""
        data = EventDataModule(make_store({1: LENGTHS}), num_sub_epochs=4, **size)
        plan = data.train_dataloader().plan
        places = [(epoch, part) for epoch in range(4) for part in range(4)]
        assert len({plan.num_batches(*place) for place in places}) > 1
        wanted = [batch for place in places for batch in plan.plan(*place)]
        module = self.module(lightning)
        self.trainer(lightning, tmp_path, max_epochs=12).fit(module, datamodule=data)
        ids_B = data.store.event_column("event_id", 0)
        assert (
            module.events == [ids_B[b].tolist() for b in wanted][: len(module.events)]
        )
        assert len(module.events) == 12 * len(data.train_dataloader())
        assert module.validated == 12 * ids(data.val_dataloader())

    def test_resumes_in_the_middle_of_a_sub_epoch(
        self, lightning: Any, make_store: MakeStore, tmp_path: Path
    ) -> None:
        store = make_store({1: LENGTHS})

        def data() -> EventDataModule:
            return EventDataModule(store, batch_size=4, num_sub_epochs=2)

        calm = self.module(lightning)
        self.trainer(lightning, tmp_path, max_epochs=4).fit(calm, datamodule=data())
        stop = len(data().train_dataloader()) + 2

        class Save(lightning.Callback):  # type: ignore[misc, name-defined]
            def on_train_batch_end(self, trainer: Any, *further: Any) -> None:
                if trainer.global_step == stop:
                    trainer.save_checkpoint(tmp_path / "middle.ckpt")

        first = self.module(lightning)
        trainer = self.trainer(lightning, tmp_path, max_epochs=4, callbacks=[Save()])
        trainer.fit(first, datamodule=data())
        assert first.events == calm.events
        second = self.module(lightning)
        self.trainer(lightning, tmp_path, max_epochs=4).fit(
            second, datamodule=data(), ckpt_path=tmp_path / "middle.ckpt"
        )
        assert second.events == calm.events[stop:]
        for ours, theirs in zip(second.parameters(), calm.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("epochs_done", [1, 2, 3])
    def test_resumes_between_two_sub_epochs(
        self, lightning: Any, make_store: MakeStore, tmp_path: Path, epochs_done: int
    ) -> None:
        """Where Lightning itself forgets a loader's place."""
        store = make_store({1: LENGTHS})

        def data() -> EventDataModule:
            return EventDataModule(store, batch_size=4, num_sub_epochs=2)

        class Save(lightning.Callback):  # type: ignore[misc, name-defined]
            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                if trainer.current_epoch + 1 == epochs_done:
                    trainer.save_checkpoint(tmp_path / "between.ckpt")

        calm = self.module(lightning)
        trainer = self.trainer(lightning, tmp_path, max_epochs=4, callbacks=[Save()])
        trainer.fit(calm, datamodule=data())
        second = self.module(lightning)
        self.trainer(lightning, tmp_path, max_epochs=4).fit(
            second, datamodule=data(), ckpt_path=tmp_path / "between.ckpt"
        )
        stop = epochs_done * len(data().train_dataloader())
        assert second.events == calm.events[stop:]


@pytest.mark.parametrize("step_batches", [1, 3, 5, 100])
def test_an_iteration_is_whole_steps(make_store: MakeStore, step_batches: int) -> None:
    data = EventDataModule(
        make_store({1: LENGTHS * 3}),
        batch_size=4,
        num_sub_epochs=2,
        step_batches=step_batches,
    )
    batches = len(data.train_dataloader())
    assert batches % step_batches == 0
    mean = data.sub_epoch_batches()
    assert abs(batches - mean) <= max(step_batches / 2, step_batches - mean)
    assert len(list(data.train_dataloader())) == batches
    # Two ranks go through a sub-epoch in about half the batches.
    assert data.sub_epoch_batches(2) == pytest.approx(mean / 2, abs=1.5)


@pytest.mark.parametrize("wanted", [1, 2, 4, 7, 32, 60, 90, 128, 200, 1000])
def test_an_epoch_shows_its_events_once(make_store: MakeStore, wanted: int) -> None:
    """Whatever is asked for a step: its size gives way, not the epoch's."""
    data = EventDataModule(make_store({1: [3, 5, 4] * 500}), batch_size=1)
    events = sum(
        len(data.train_events.local_events(data.store, shard))
        for shard in range(len(data.store.shards))
    )
    assert events / 8 == pytest.approx(170, rel=0.1)
    data.step_batches = data.fitting_step(wanted)
    batches = len(data.train_dataloader())
    assert batches == data.iteration_batches()
    assert batches % data.step_batches == 0
    assert 8 * batches == pytest.approx(events, rel=0.03)
    if wanted < 8:
        assert data.step_batches == wanted
    else:
        assert data.step_batches == pytest.approx(min(wanted, events / 8), rel=0.5)
    # Two ranks have half the batches, and see as many events.
    data.step_batches = data.fitting_step(wanted, 2)
    assert 8 * 2 * data.iteration_batches(2) == pytest.approx(events, rel=0.06)


def test_fraction_of_the_validation(make_store: MakeStore) -> None:
    store = make_store({1: LENGTHS * 10})
    sizes = [
        len(ids(EventDataModule(store, validation_fraction=share).val_dataloader()))
        for share in (0.05, 0.5)
    ]
    assert 5 <= sizes[0] <= 50
    assert 190 <= sizes[1] <= 290


def test_published_features_have_the_slips(make_store: MakeStore) -> None:
    store = make_store({1: LENGTHS})
    ours, theirs = (
        next(
            iter(
                EventDataModule(
                    store, published_features=published
                ).predict_dataloader()
            )
        ).features
        for published in (False, True)
    )
    assert torch.equal(ours[:, :6], theirs[:, :6])
    assert not torch.equal(ours[:, 6:], theirs[:, 6:])
