"""What the published training does otherwise than a recipe, in words.

Source: github.com/DrHB/icecube-2nd-place, train.py, src/loss.py, README, and fastai
2.7.10. A recipe that was made `as_published` has fewer of these notes.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphnet_icecube2nd.training.recipe import (
    OPENING_ANGLE,
    Recipe,
    as_published,
)

LR_MAX, SUB_EPOCHS = 1e-5, 8  # written into the published fit_one_cycle


def published_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return what the published code does otherwise than a recipe, a sentence each.

    What its own configuration does not say is there too, and where it comes to an end
    before it trains.
    """
    notes = [*_of_stages(recipe), *_of_the_data(recipe), *_where_it_fails(recipe)]
    return tuple(f"the published code {note}" for note in notes)


def _of_stages(recipe: Recipe) -> list[str]:
    stages = recipe.stages
    notes = []
    if any(stage.lr_max != LR_MAX for stage in stages):
        notes.append(
            "sets the largest learning rate to 1e-5 whatever LR_MAX says; here it is "
            f"{_each(f'{stage.lr_max:g}' for stage in stages)}"
        )
    num_parts = [recipe.num_sub_epochs(number) for number in range(len(stages))]
    of_an_epoch = recipe.data.num_sub_epochs
    if {*num_parts, of_an_epoch} != {SUB_EPOCHS}:
        notes.append(
            f"trains {SUB_EPOCHS} sub-epochs whatever EPOCHS says; here it is "
            f"{_each(num_parts)} of 1/{of_an_epoch} of the events each"
        )
    ours = _each(stage.accumulate_events for stage in stages)
    theirs = _each(stage.accumulate_events for stage in as_published(recipe).stages)
    if ours != theirs:
        notes.append(
            f"steps every {theirs} events, as fastai counts samples; here every {ours} "
            f"(stages.0.accumulate_events={theirs})"
        )
    if any(s.loss != "angle" and s.normalisation != "published" for s in stages):
        notes.append(
            "has an approximate vmf above kappa 100; here it is exact "
            "(stages.0.normalisation=published)"
        )
    if any(stage.ema and stage.save_ema for stage in stages):
        notes.append(
            "validates the average of the weights and saves the raw ones; here the "
            "average is saved (stages.0.save_ema=false for theirs)"
        )
    if any(stage.next_from == "best" for stage in stages[:-1]):
        notes.append(
            "keeps weights of every sub-epoch, and its commands go on from the last, "
            "where its README says the best; here the best go on "
            "(stages.0.next_from=last for theirs)"
        )
    eps = _each(f"{stage.eps:g}" for stage in stages)
    here = "as here" if eps == "1e-08" else f"here it is {eps}"
    notes.append(f"asks for AdamW's eps of 1e-7 and gets 1e-8; {here} (stages.0.eps)")
    return notes


def _of_the_data(recipe: Recipe) -> list[str]:
    notes = [
        "splits a batch of BS events over all GPUs (DataParallel); here BS is that of "
        "each device (stages.0.batch_size)"
    ]
    if recipe.precision != "float16":
        notes.append(
            f"computes in float16 under autocast; here it is {recipe.precision} "
            "(precision=float16 for theirs)"
        )
    if recipe.data.sub_epochs != "published":
        notes.append(
            "draws independent random eighths (66% of the events are seen in eight); "
            "here sub-epochs part the events (data.sub_epochs=published for theirs)"
        )
    if recipe.data.features != "published":
        notes.append(
            "has slips in its efficiency and ice features, which only hybrids read; "
            "here they are mended (data.features=published for theirs)"
        )
    return notes


def _where_it_fails(recipe: Recipe) -> list[str]:
    notes = []
    if any(stage.loss == "combined" for stage in recipe.stages):
        notes.append(
            "does not import loss_comb in its train.py, so its commands with LOSS_FUNC "
            "loss_comb end in an AttributeError; here it is what its src/loss.py has"
        )
    if recipe.monitor != OPENING_ANGLE:
        notes.append(
            "stops where METRIC is not loss, as it saves weights by a metric of that "
            "name; here the best weights are told by the loss of the validation"
        )
    return notes


def _each(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
