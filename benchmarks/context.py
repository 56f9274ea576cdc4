"""Context of a benchmark: hardware, versions, commit and settings."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pyarrow",
    "torch-geometric",
    "pytorch-lightning",
)


def describe(**configuration: Any) -> dict[str, Any]:
    """Return hardware, versions, commit, date and the benchmark's own settings."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": len(cores()),
        "memory_GB": round(memory() / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "configuration": configuration,
    }


def cores() -> set[int]:
    """Return the number of cores that this process may use."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def commit() -> str:
    """Return the commit, with a + if files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def cpu_name() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def memory() -> int:
    """Return the machine's memory in bytes, 0 if unknown."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return 0
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return int(first.split()[1]) * 1024


def anonymous_memory() -> int:
    """Return the anonymous memory of this process in bytes (RssAnon)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell RssAnon")


def version(name: str) -> str:
    """Return the version of a library, or that it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def table(context: dict[str, Any]) -> str:
    """Return the context as Markdown."""
    versions = ", ".join(f"{k} {v}" for k, v in context["versions"].items())
    settings = ", ".join(f"{k} {v}" for k, v in context["configuration"].items())
    return (
        f"Measured {context['date']} at commit {context['commit']} on "
        f"{context['cpu']}, {context['cores']} cores, {context['memory_GB']} GB, "
        f"{context['system']}, Python {context['python']}; {versions}. {settings}."
    )


def write(out: Path | None, name: str, text: str, result: dict[str, Any]) -> None:
    """Print a result, and write it as NAME.md and NAME.json into a given folder."""
    print(text)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    content = json.dumps(result, indent=1) + "\n"
    (out / f"{name}.json").write_text(content, encoding="utf-8")
