"""The store of whatever holds events: itself, or one made beside the files once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.preparation import prepare
from graphnet_icecube2nd.training.run import is_first_process


def as_store(data: str | os.PathLike[str], say: Callable[[str], None] = print) -> Path:
    """Return a store; of files that are none, one that is made beside them once.

    Args:
        data: A store, or what `prepare` reads, as the competition's folder. The store
            of `data` is then `data_store`.
        say: Called, in the first process, with what was found or made, in words.

    Raises:
        ValueError: There is no store, and this is not the first of several processes;
            and as `prepare`.
    """
    files = Path(data)
    if (files / MANIFEST).is_file():
        return files
    store = files.with_name(f"{files.name}_store")
    if (store / MANIFEST).is_file():
        if is_first_process():
            say(f"{files} is no store: its events are in {store}")
        return store
    if not is_first_process():
        raise ValueError(
            f"{files} is no store; before several processes train, make one: "
            f"icecube2nd prepare {files} {store}"
        )
    say(f"{files} is no store: preparing one in {store}")
    prepare(files, store)
    return store
