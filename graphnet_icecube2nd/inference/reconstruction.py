"""A trained model's answers for whatever holds events: a store, a frame, arrays."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.inference.frames import group_pulses
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    STORED,
    GivenCalibration,
    ModelBundle,
    as_bundle,
)
from graphnet_icecube2nd.inference.predictor import (
    WINDOW,
    Predictor,
    Progress,
)
from graphnet_icecube2nd.inference.pulse_reconstruction import (
    PulseReconstructor,
    as_detector,
)
from graphnet_icecube2nd.inference.results import (
    ResultMaker,
    failed_tasks,
    without_full_columns,
)
from graphnet_icecube2nd.inference.store_reconstruction import reconstruct_store
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.results.event_table import CALIBRATED, EventTable
from graphnet_icecube2nd.results.result_files import (
    EVENT_NO,
    Columns,
    check_replaceable,
    format_of,
    write_results,
)
from graphnet_icecube2nd.results.table_io import read_columns
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import EVENT_ID, N_PULSES
from graphnet_icecube2nd.tasks.direction.direction import (
    CONTOURS,
    Direction,
    checked_contours,
)

SUBMISSION = "submission"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What a reconstruction came to.

    Args:
        name: Of the model.
        path: The file of results; None where none was asked for.
        format: Of that file; None where there is none.
        num_events: Rows: every event of the input.
        statuses: How many events by status.
        num_resumed: Rows that an earlier call had already found.
        seconds: It took.
        num_calibrated: Rows whose widths are calibrated.
        notices: What is worth knowing of model and data, in words.
        in_memory: The rows, where there is no file.
    """

    name: str
    path: Path | None
    format: str | None
    num_events: int
    statuses: dict[str, int]
    num_resumed: int
    seconds: float
    num_calibrated: int = 0
    notices: tuple[str, ...] = ()
    in_memory: Columns | None = None

    def columns(self) -> Columns:
        """Return the rows as (B,) arrays by column, of the file where there is one."""
        if self.in_memory is not None:
            return self.in_memory
        assert self.path is not None
        columns = read_columns(self.path, format=_read_as(self.format))
        return {"event_id" if n == EVENT_NO else n: c for n, c in columns.items()}

    def table(self) -> EventTable:
        """Return the rows as an `EventTable`.

        Raises:
            ValueError: They went into a submission, which has neither kappa nor status.
        """
        if self.format == SUBMISSION:
            raise ValueError(f"{self.path} is a submission: it has no kappa, no status")
        return EventTable.from_columns(self.columns(), self.name)

    def to_pandas(self) -> Any:
        """Return the rows as a DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.columns())


def reconstruct(
    data: Any,
    model: ModelBundle | Model | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    options: InferenceConfig | None = None,
    calibration: GivenCalibration = STORED,
    device: str = "cpu",
    contours: Sequence[float] = CONTOURS,
    events: Any = None,
    detector: Detector | str | None = None,
    pulse_map: PulseMap | str | None = None,
    event_column: str | None = None,
    geometry: DetectorGeometry | None = None,
    ice: IceModel | None = None,
    unknown_detector: bool = False,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """Reconstruct every event once, in the order of the input.

    Columns: event_id; those of each task of the model (`Task.columns`), of the
    direction direction_x, _y, _z to where the neutrino came from, azimuth, zenith
    (rad), kappa, radius_50 and radius_90 of the contours that hold half and nine
    tenths (rad); calibrated: whether the event's widths are; n_pulses; status: `ok`,
    `no pulses`, `not finite`, `length 0`; and TASK_is_valid where one of several tasks
    failed for some event. Whatever has no answer has NaN (in SQLite NULL). In SQLite
    they are the table `directions` with event_no in place of event_id, as GraphNeT has
    it: a database that is there keeps its other tables. A submission needs a direction
    of every event, so one without gets the horizon, azimuth 0 and zenith pi / 2.

    A store is read in windows, in bounded memory; killed and called again, the call
    goes on, and ends with the same file. Pulses in memory need neither store nor
    pyarrow.

    Args:
        data: A store or its path; or one row a pulse, in any order: a DataFrame of
            pandas or polars, a table of pyarrow, a mapping of arrays.
        model: A `ModelBundle`, a model as it is, or what `load_bundle` takes:
            `t_sim.simulated`, a run's or an ensemble's folder.
        out: The file: .parquet, .csv, .db, or `submission.csv`; None: none. A file
            that is there and holds no results is not replaced.
        format: `parquet`, `csv`, `sqlite`, `submission`; default by the ending.
        options: How the model reads events; default: as it was trained.
        calibration: Makes widths hold: `stored`: what is stored with the model, if
            anything is; `none` or None: none; or others, by task.
        device: `cpu`, `cuda`, `mps`, ...; the model is moved there.
        contours: Shares, 0 to 1, of the contours whose radii are columns: `radius_68`
            of 0.68.
        events: Of pulses in memory: (B,) numbers of all events, also of those without
            pulses, in the order of results. Default: as they first come.
        detector: Of pulses in memory: whose they are, and what the columns mean.
        pulse_map: Of pulses in memory; default: recognised by the columns.
        event_column: Of pulses in memory; default `event_id` or `event_no`.
        geometry: Of pulses in memory, with a pulse map; default IceCube-86.
        ice: Of pulses in memory, with a pulse map; default IceCube's.
        unknown_detector: Use the model on a detector or a clock that it was not trained
            on; its answers are then not calibrated.
        on_progress: Called with new events and pulses.

    Warns:
        UserWarning: The model is used otherwise than it was trained, or many events lie
            outside the ranges of its training.

    Raises:
        DomainError: The model was trained on another detector or clock, or its stored
            calibration was fitted with another `max_pulses` or selection.
        ValueError: Unknown format or model; a submission of a model without directions;
            pulses that cannot be true; an option of pulses in memory with a store;
            another process is at work on this file; a file of that name that holds no
            results.
        TypeError: Data of no kind that is known.
    """
    begun = time.monotonic()
    bundle = as_bundle(model).calibrated(calibration)
    bundle.model.to(device)
    options = options or bundle.options
    contours = checked_contours(contours)
    if out is not None:
        format = format_of(out, format)  # before any work
        check_replaceable(out, format)
        if format == SUBMISSION and Direction.name not in bundle.model.task_map:
            raise ValueError(
                f"a submission needs the task 'direction'; model {bundle.name!r} has "
                f"{', '.join(bundle.model.task_map)}. Use a model with directions, or "
                "write another format: .parquet, .csv or .db"
            )
    rows: Columns | None = None
    num_resumed = num_calibrated = 0
    if isinstance(data, str | os.PathLike | EventStore):
        of_pulses = {
            "events": events,
            "detector": detector,
            "pulse_map": pulse_map,
            "event_column": event_column,
            "geometry": geometry,
            "ice": ice,
        }
        if given := [name for name, value in of_pulses.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: a store has its own")
        store = data if isinstance(data, EventStore) else EventStore(data)
        maker = ResultMaker.of(
            bundle,
            store.detector,
            options,
            contours,
            unknown_detector=unknown_detector,
            columns=dict.fromkeys(store.pulse_columns),
        )
        if out is not None:
            statuses, num_calibrated, num_resumed = reconstruct_store(
                store, maker, out, format=format, on_progress=on_progress
            )
        else:
            rows = _rows_of_store(store, maker, on_progress)
    else:
        if detector is not None and pulse_map is not None:
            raise ValueError(
                "detector and pulse_map are both given; a detector has its pulse map: "
                "give one of them"
            )
        named = None if detector is None else as_detector(detector)
        pulses = group_pulses(
            data,
            events=events,
            pulse_map=pulse_map if named is None else named.pulses,
            event_column=event_column,
        )
        with warnings.catch_warnings():  # said below, with what the values say
            warnings.simplefilter("ignore", UserWarning)
            reconstructor = PulseReconstructor(
                bundle,
                pulses.pulse_map if named is None else named,
                geometry=geometry,
                ice=ice,
                options=options,
                contours=contours,
                unknown_detector=unknown_detector,
            )
        maker = reconstructor.maker
        maker.domain.add_unread(pulses.unread)
        rows = reconstructor(
            pulses.columns, pulses.offsets, pulses.event_id, on_progress
        )
        if out is not None:
            assert format is not None
            write_results(out, [rows], format, maker.metadata())
    if rows is not None:
        statuses = dict(Counter(rows["status"].tolist()))
        num_calibrated = int(rows[CALIBRATED].sum())
    notices = maker.notices
    for text in notices:
        if text not in maker.domain.notices:
            warnings.warn(text, stacklevel=2)
    return Reconstruction(
        name=bundle.name,
        path=None if out is None else Path(out),
        format=None if out is None else format,
        num_events=sum(statuses.values()),
        statuses=statuses,
        num_resumed=num_resumed,
        seconds=time.monotonic() - begun,
        num_calibrated=num_calibrated,
        notices=tuple(notices),
        in_memory=rows,
    )


def _rows_of_store(
    store: EventStore, maker: ResultMaker, on_progress: Progress | None
) -> Columns:
    """Return the rows of all events of a store, in memory."""
    predictor = Predictor(maker.bundle.model, store, maker.options, domain=maker.domain)
    event_id = store.whole_event_column(EVENT_ID)
    length_B = store.whole_event_column(N_PULSES)
    tables = []
    for first in range(0, max(1, len(store)), WINDOW):
        numbers = np.arange(first, min(first + WINDOW, len(store)))
        outputs, inside_B = predictor.outputs_and_domain(
            numbers, length_B[numbers], on_progress
        )
        tables.append(
            maker.rows(outputs, event_id[numbers], length_B[numbers], inside_B)
        )
    rows = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
    return without_full_columns(rows, [*failed_tasks(rows)])


def _read_as(format: str | None) -> str | None:
    return "csv" if format == SUBMISSION else format
