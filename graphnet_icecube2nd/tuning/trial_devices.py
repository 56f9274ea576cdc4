"""The machine of each worker of a search: one device, where there are several another.

A trial of several ranks would need every rank to ask the study for the same values, and
to hear of a pruned trial. So devices go to workers, not to ranks.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from graphnet_icecube2nd.training.trainer import TrainerConfig


def machines_of_workers(machine: TrainerConfig, workers: int) -> list[TrainerConfig]:
    """Return the machine of each worker.

    Args:
        machine: Its `devices` are 1 or `auto`, or a list as `0,2`.
        workers: How many there are. Each takes one of the list; with 1 or `auto` one of
            the CUDA devices that are there, if there are several workers.

    Raises:
        ValueError: A trial would take several devices or nodes.
    """
    if machine.num_nodes > 1:
        raise ValueError(f"a trial takes one node, got num_nodes {machine.num_nodes}")
    text = str(machine.devices)
    devices: list[str | int] = [1]
    if "," in text:
        # Lightning reads a number with a comma as the device of that number.
        devices = [f"{name.strip()}," for name in text.split(",") if name.strip()]
        if len(devices) > workers:
            raise ValueError(
                f"a trial takes one device: devices {text} are {len(devices)}, workers "
                f"are {workers}"
            )
    elif text not in ("1", "auto"):
        raise ValueError(
            "a trial takes one device: devices must be 1, or a list as 0,2 for as many "
            f"workers; got {text}"
        )
    elif workers > 1 and machine.accelerator in ("auto", "gpu", "cuda"):
        devices = [f"{number}," for number in range(torch.cuda.device_count())] or [1]
    return [
        replace(machine, devices=devices[number % len(devices)])
        for number in range(workers)
    ]
