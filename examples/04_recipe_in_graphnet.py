"""Train the first stage of a recipe with GraphNeT's own `StandardModel`.

    python examples/04_recipe_in_graphnet.py --recipe t_sim --out runs/recipe_graphnet

By default it simulates events first; --data takes any store. Initial weights, batches,
loss, AdamW, one-cycle and average of the weights are those of `icecube2nd train`. It
writes into --out: recipe.yaml, model.yml (GraphNeT's configuration), weights.pth
(GraphNeT's state dict), predictions.csv. The next stage, in GraphNeT or in `icecube2nd
train`, starts with `weights=weights.pth`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--recipe", default="t_sim", help="name or .yaml file of the recipe"
    )
    parser.add_argument("--data", type=Path, help="event store")
    parser.add_argument(
        "--simulate", type=int, default=8000, help="events to simulate without --data"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/recipe_graphnet"))
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="initial weights of the stage")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace a value of the recipe, such as stages.0.lr_max=1e-4",
    )
    return parser.parse_args()


def main() -> None:
    """Train, predict and report."""
    arguments = parse_arguments()
    try:
        from graphnet_icecube2nd.graphnet_adapter.recipe import recipe_stage
    except ImportError as error:
        sys.exit(f"this example needs GraphNeT: {error}")
    import torch

    from graphnet_icecube2nd import simulate
    from graphnet_icecube2nd.tasks.direction import summarise_opening_angles
    from graphnet_icecube2nd.training.recipe import write_recipe

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    store = arguments.data
    if store is None:
        store = out / "store"
        if not (store / "manifest.json").exists():
            simulate(store, num_events=arguments.simulate, seed=1)
    stage = recipe_stage(
        arguments.recipe,
        str(store),
        stage=arguments.stage,
        overrides=arguments.set,
        weights=arguments.weights,
    )
    write_recipe(stage.recipe, out / "recipe.yaml")
    model, data = stage.model, stage.data
    model.fit(
        data.train_dataloader(),
        data.val_dataloader(),
        default_root_dir=str(out),
        logger=False,
        enable_checkpointing=False,
        **stage.fit_options,
    )

    # Predictions of the validation events; `predict_dataloader()` has all events.
    model.inference()
    model.eval()
    with torch.no_grad():
        parts = [(model(b)[0], b["direction"], b["event_no"]) for b in
                 data.val_dataloader()]  # fmt: skip
    predicted, true, event_no = (torch.cat(part) for part in zip(*parts, strict=True))
    summary = summarise_opening_angles(predicted[:, :3], true)
    lines = ["event_no,dir_x,dir_y,dir_z,kappa"]
    lines += [
        f"{event},{','.join(f'{value:.6g}' for value in row)}"
        for event, row in zip(event_no.tolist(), predicted.tolist(), strict=True)
    ]
    (out / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model.save_config(str(out / "model.yml"))
    model.save_state_dict(str(out / "weights.pth"))
    print(
        f"{summary.num_events} validation events: mean opening angle "
        f"{summary.mean:.3f} rad ({summary.mean * 180 / torch.pi:.1f} deg)\n"
        f"written to {out}: recipe.yaml, model.yml, weights.pth, predictions.csv"
    )


if __name__ == "__main__":
    main()
