"""Values of options that a shell completes: names of recipes, models and so on."""

from __future__ import annotations

from collections.abc import Iterable


def recipe(incomplete: str) -> list[str]:
    """Return the recipes whose names begin so."""
    from graphnet_icecube2nd.training.recipes import list_recipes

    return _matching(list_recipes(), incomplete)


def model(incomplete: str) -> list[str]:
    """Return the packaged weights whose names begin so."""
    from graphnet_icecube2nd.models.pretrained import list_pretrained

    return _matching(list_pretrained(), incomplete)


def detector(incomplete: str) -> list[str]:
    """Return the detectors whose names begin so."""
    from graphnet_icecube2nd.detector.presets import list_detectors

    return _matching(list_detectors(), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Return the lists of tasks, separated by commas, that begin so."""
    from graphnet_icecube2nd.tasks.catalogue import list_tasks

    *chosen, _ = incomplete.split(",")
    names = [name for name in list_tasks() if name not in chosen]
    return _matching((",".join([*chosen, name]) for name in names), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
