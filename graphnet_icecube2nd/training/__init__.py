"""Recipes of stages, and resumable training runs."""

from graphnet_icecube2nd.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DataConfig": "recipe",
        "Recipe": "recipe",
        "Stage": "recipe",
        "TrainerConfig": "trainer",
        "finetune": "transfer",
        "find_recipe": "recipes",
        "list_recipes": "recipes",
        "pretrain": "transfer",
        "register_recipe": "recipes",
        "train": "run",
    },
)
