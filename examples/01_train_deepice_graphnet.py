"""Train a small DeepIceGNN on a GraphNeT database, with GraphNeT's own classes.

By default it simulates events first, with all columns that a model reads:

    python examples/01_train_deepice_graphnet.py --out runs/example

It also takes your own database with the columns of IceCube-86 frames:

    python examples/01_train_deepice_graphnet.py --data my.db --columns icecube86
        --pulsemap SplitInIcePulses --truth-table truth --out runs/mine

It writes into --out: simulated_*.db (without --data), model.yml and dataset.yml
(GraphNeT configurations), weights.pth and predictions.csv (test events). It prints the
opening angle on the test events.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

HOW_TO_GET_GRAPHNET = """\
This example needs GraphNeT, which is not installed (or not importable: {reason}).
Get its source from github.com/graphnet-team/graphnet and install it, for instance with

    make demo-graphnet GRAPHNET=<its folder, or anything pip can install>

The project "graphnet" on the package index is another library; see README.md.
"""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a misspelt option is an error
    )
    parser.add_argument(
        "--data", help="GraphNeT SQLite file (*.db), or folder of GraphNeT parquet"
    )
    parser.add_argument(
        "--simulate", type=int, default=1000, help="events to simulate without --data"
    )
    parser.add_argument(
        "--columns",
        default="kaggle",
        choices=["prometheus", "icecube86", "upgrade", "kaggle"],
        help="names and meaning of the pulse columns; kaggle: a GraphNeT database with "
        "x, y, z, time, charge, auxiliary, not the competition's own files",
    )
    parser.add_argument("--pulsemap", default="pulses", help="table of pulses")
    parser.add_argument("--truth-table", default="truth")
    parser.add_argument(
        "--angles",
        choices=["origin", "flight"],
        default="origin",
        help="direction of the true angles: back to the origin, or along the flight; "
        "GraphNeT's Prometheus example has origin",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument(
        "--workers", type=int, default=0, help="reading processes, for SQLite"
    )
    parser.add_argument("--max-pulses", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.batch_size, arguments.max_pulses) < 1:
        parser.error("--epochs, --batch-size and --max-pulses must be at least 1")
    if arguments.simulate < 5:
        parser.error("--simulate must be at least 5")
    return arguments


def simulated_database(out: Path, events: int, seed: int) -> str:
    """Return a GraphNeT database of simulated events; create it if necessary."""
    from graphnet_icecube2nd import simulate

    path = out / f"simulated_{events}_{seed}.db"
    if not path.exists():
        simulate(path, num_events=events, seed=seed, format="graphnet")
    return str(path)


def check_data(arguments: argparse.Namespace, path: str, columns: list[str]) -> None:
    """Exit with one line if the data do not match the options."""
    if not os.path.exists(path):
        sys.exit(f"there is no {path}")
    tables = (arguments.pulsemap, arguments.truth_table)
    if os.path.isdir(path):
        if missing := [t for t in tables if not os.path.isdir(os.path.join(path, t))]:
            sys.exit(f"{path} has no folder {', '.join(missing)} of parquet files")
        return
    if not path.endswith(".db"):
        sys.exit(f"{path} must be a GraphNeT SQLite file (*.db) or a parquet folder")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        there = sorted(name for (name,) in connection.execute(query))
        if missing := [table for table in tables if table not in there]:
            sys.exit(
                f"{path} has no table {', '.join(missing)}; it has {', '.join(there)}. "
                "See --pulsemap and --truth-table"
            )
        cursor = connection.execute(f'SELECT * FROM "{arguments.pulsemap}" LIMIT 0')
        named = [entry[0] for entry in cursor.description]
    if missing := [c for c in columns if c not in named and c != "rde"]:
        sys.exit(
            f"table {arguments.pulsemap} has no column {', '.join(missing)}; it has "
            f"{', '.join(named)}. See --columns"
        )


def main() -> None:
    """Train, predict and report."""
    arguments = parse_arguments()
    try:
        import graphnet.models as _  # noqa: F401
    except ImportError as error:
        sys.exit(HOW_TO_GET_GRAPHNET.format(reason=error))
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = train_and_predict(arguments)
    print(report)


def train_and_predict(arguments: argparse.Namespace) -> str:
    """Train and predict; return the final report."""
    import pandas as pd
    import pytorch_lightning as pl
    import torch
    from graphnet.data import GraphNeTDataModule
    from graphnet.data.dataset import ParquetDataset, SQLiteDataset
    from graphnet.models import StandardModel
    from graphnet.models.task.reconstruction import DirectionReconstructionWithKappa

    import graphnet_icecube2nd.graphnet_adapter as adapter
    from graphnet_icecube2nd.tasks.direction import summarise_opening_angles

    pl.seed_everything(arguments.seed)
    path = arguments.data or simulated_database(
        arguments.out, arguments.simulate, arguments.seed
    )
    is_sqlite = path.endswith(".db")

    # 1. Pulses: columns, scaling, selection of the pulses of long events.
    detectors: dict[str, Any] = {
        "prometheus": adapter.PrometheusPulseMapDetector,
        "icecube86": adapter.IceCube86PulseMapDetector,
        "upgrade": adapter.UpgradePulseMapDetector,
        "kaggle": adapter.KagglePulseMapDetector,
    }
    detector = detectors[arguments.columns](angles=arguments.angles)
    check_data(arguments, path, list(detector.feature_map()))
    representation = adapter.PackedPulses(
        detector=detector, max_pulses=arguments.max_pulses, seed=arguments.seed
    )
    azimuth, zenith = (
        detector.pulse_map.labels.azimuth,
        detector.pulse_map.labels.zenith,
    )

    # 2. Data, with GraphNeT's data module; a fifth are test events.
    dataset_args = {
        "path": path,
        "pulsemaps": [arguments.pulsemap],
        "features": list(detector.feature_map()),
        "truth": [azimuth, zenith],
        "truth_table": arguments.truth_table,
        "data_representation": representation,
        "labels": {"direction": detector.direction_label()},
    }
    dataset_class = SQLiteDataset if is_sqlite else ParquetDataset
    whole = dataset_class(**dataset_args)
    # SQLite selects events, parquet selects files of events.
    units = sorted(int(unit) for unit in whole._get_all_indices())
    if len(units) < 5:
        sys.exit(f"{path} has {len(units)} events or files; at least 5 are needed")
    shuffled = torch.randperm(len(units)).tolist()
    num_test = max(1, len(units) // 5)
    test = [units[index] for index in shuffled[:num_test]]
    train = [units[index] for index in shuffled[num_test:]]
    loader = {
        "batch_size": arguments.batch_size,
        "num_workers": arguments.workers if is_sqlite else 0,
        "prefetch_factor": 2 if arguments.workers and is_sqlite else None,
        "persistent_workers": False,
        "collate_fn": adapter.collate_events,  # keeps one-pulse events
    }
    data = GraphNeTDataModule(
        dataset_reference=dataset_class,
        dataset_args=dataset_args,
        selection=train,
        test_selection=test,
        train_dataloader_kwargs={**loader, "shuffle": True},
        validation_dataloader_kwargs=loader,
        test_dataloader_kwargs=loader,
        train_val_split=[0.8, 0.2],
        split_seed=arguments.seed,
    )

    # 3. The model: our backbone and loss in GraphNeT's StandardModel.
    backbone = adapter.DeepIceGNNBackbone(
        dim=96,
        dim_base=32,
        depth=3,
        head_size=32,
        knn_features=4,
        n_rel=4,
        extra_features=list(detector.pulse_map.extra),
    )
    task = DirectionReconstructionWithKappa(
        hidden_size=backbone.nb_outputs,
        target_labels="direction",
        loss_function=adapter.CombinedDirection(),
    )
    model = StandardModel(
        data_representation=representation,
        backbone=backbone,
        tasks=[task],
        optimizer_class=torch.optim.AdamW,
        optimizer_kwargs={"lr": arguments.learning_rate, "weight_decay": 0.05},
    )
    model.fit(
        data.train_dataloader,
        data.val_dataloader,
        max_epochs=arguments.epochs,
        early_stopping_patience=arguments.epochs,
        distribution_strategy="auto",
        default_root_dir=str(arguments.out),
        logger=pl.loggers.CSVLogger(str(arguments.out), name="log"),
    )

    # 4. Test events: predictions and opening angles.
    # A loader of torch: for predictions Lightning recreates a loader and forgets
    # num_workers=0; GraphNeT's then forks a worker, in which parquet reading hangs.
    test_loader = torch.utils.data.DataLoader(
        data.test_dataloader.dataset,
        batch_size=arguments.batch_size,
        collate_fn=adapter.collate_events,
    )
    predictions: pd.DataFrame = model.predict_as_dataframe(
        test_loader,
        additional_attributes=["event_no", azimuth, zenith, "n_pulses"],
        default_root_dir=str(arguments.out),
        logger=False,
    )
    columns = ["dir_x_pred", "dir_y_pred", "dir_z_pred"]
    predicted = torch.tensor(predictions[columns].to_numpy())
    true = torch.cat([batch["direction"] for batch in test_loader])
    summary = summarise_opening_angles(predicted, true)
    # Comparison: the mean direction of the training events as constant prediction.
    seen = data.train_dataloader.dataset
    some = range(0, len(seen), 1 + len(seen) // 10_000)
    known = torch.cat([seen[index]["direction"] for index in some])
    constant = summarise_opening_angles(known.mean(0).expand(len(true), 3), true)

    # 5. Files with which a colleague can use the model.
    predictions.to_csv(arguments.out / "predictions.csv", index=False)
    model.save_config(str(arguments.out / "model.yml"))
    model.save_state_dict(str(arguments.out / "weights.pth"))
    if is_sqlite:  # GraphNeT's parquet configurations have no selections
        chosen = {
            "train": train,
            "test": test,
        }  # train: before the split for validation
        whole.config.selection = {
            name: f"event_no in ({', '.join(map(str, events))},)"
            for name, events in chosen.items()
        }
    whole.config.dump(str(arguments.out / "dataset.yml"))
    degrees = 180 / torch.pi
    few = "too few events: the values below are not significant\n"
    return (
        f"\n{'-' * 72}\n{len(predictions)} test events of {path}"
        f"\n{few if len(predictions) < 100 else ''}"
        f"mean opening angle {summary.mean:.3f} rad "
        f"({summary.mean * degrees:.1f} deg), "
        f"median {summary.median:.3f} rad ({summary.median * degrees:.1f} deg)\n"
        "mean direction of the training events as constant prediction: "
        f"{constant.mean:.3f} rad ({constant.mean * degrees:.1f} deg)\n"
        f"written to {arguments.out}: model.yml, dataset.yml, weights.pth, "
        "predictions.csv"
    )


if __name__ == "__main__":
    main()
