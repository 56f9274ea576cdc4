"""Makes `.venv`, in which `make test`, `make demo` and `make lint` run.

    PYTHON tools/setup_venv.py [EXTRA ...]

The environment also sees the site packages of the Python that runs this script, so a
GraphNeT or icetray that is there is found. Where GraphNeT is found, or asked for with
the variable GRAPHNET, what is installed stays below GraphNeT's limits and a torch that
is there stays as it is. PIP_FLAGS is handed to every `pip install`. A call that finds
everything as it left it does nothing. Needs the standard library only.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup.json"
CONSTRAINTS = VENV / "constraints.txt"

# pandas 3 turns evenly spaced event numbers into a range, which a parquet file holds
# as metadata and not as the column that GraphNeT reads.
GRAPHNET_LIMITS = ("numpy<2", "pandas<3", "pyarrow<23", "torch-geometric<2.8")
# Compiled against one torch; their builds need to see it.
TORCH_EXTENSIONS = ("torch-scatter", "torch-cluster", "torch-sparse")
KEPT = ("torch", "torchvision", *TORCH_EXTENSIONS)

# Run inside the environment: where GraphNeT lies, and which versions of KEPT are there.
# The public index's `graphnet` is another library, so GraphNeT is known by a file.
PROBE = """
import importlib.metadata, importlib.util, json, os, sys
spec = importlib.util.find_spec("graphnet")
roots = list(spec.submodule_search_locations or ()) if spec else []
model = os.path.join("models", "standard_model.py")
found = [root for root in roots if os.path.isfile(os.path.join(root, model))]
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps([found[0] if found else None, versions]))
"""


def run(*command):
    """Show a command and run it; stop where it fails."""
    print("+", shlex.join(map(str, command)), flush=True)
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"setup failed at: {shlex.join(map(str, command))}")


def probe():
    """Return GraphNeT's folder (or None) and the installed versions of KEPT."""
    command = [PYTHON, "-c", PROBE, *KEPT]
    return json.loads(subprocess.check_output(command, cwd=VENV, text=True))


def pip_install(*arguments, limited):
    """Install with pip, within GraphNeT's limits if `limited`."""
    _, versions = probe()
    kept = [f"{name}=={version}" for name, version in versions.items()]
    CONSTRAINTS.write_text("".join(f"{c}\n" for c in (*GRAPHNET_LIMITS, *kept)))
    held = ("--constraint", CONSTRAINTS) if limited else ()
    flags = shlex.split(os.environ.get("PIP_FLAGS", ""))
    run(PYTHON, "-m", "pip", "install", "--quiet", *held, *flags, *arguments)


def create_venv():
    """Create the environment, open to this Python's site packages."""
    run(sys.executable, "-m", "venv", "--system-site-packages", "--clear", VENV)
    if sys.prefix == sys.base_prefix:
        return
    # This Python is itself a virtual environment, of which the new one would see only
    # the base: let it see the packages of the environment too.
    ours = Path(
        subprocess.check_output(
            [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            text=True,
        ).strip()
    )
    parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({parent!r})\n" for parent in parents]
    (ours / "parent_environment.pth").write_text("".join(sorted(lines)))


def graphnet_requirement():
    """Return GRAPHNET as arguments for pip; refuse what would fetch another library."""
    value = os.environ.get("GRAPHNET", "").strip()
    words = [value] if " @ " in value else shlex.split(value)
    if any(re.fullmatch(r"graphnet\s*([\[=<>!~;].*)?", word) for word in words):
        sys.exit(
            f"GRAPHNET={value!r}: the public index's project of that name is another "
            "library. Give the path, the wheel or the git URL of GraphNeT's source."
        )
    if len(words) == 1 and Path(words[0]).is_dir():
        # in place, for GraphNeT's example data are in its source only
        return ["--editable", words[0]]
    return words


def main():
    """Bring the environment up to date."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python {version}: 3.10 to 3.13 is needed; name one with PYTHON=...")
    graphnet_words = graphnet_requirement()
    done = json.loads(STAMP.read_text()) if STAMP.exists() else {}

    interpreter = [sys.version, sys.prefix]
    if Path(sys.prefix).resolve() == VENV:  # called from within .venv
        interpreter = done.get("interpreter") or sys.exit("deactivate .venv first")
    if done.get("interpreter") != interpreter:
        create_venv()
        done = {"interpreter": interpreter}

    found, _ = probe()
    sources = (ROOT / "pyproject.toml", Path(__file__))
    state = {
        "interpreter": interpreter,
        "sources": [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources],
        "extras": sorted(sys.argv[1:]),
        "found": found,
        "graphnet": graphnet_words or done.get("graphnet", []),
    }
    if state == done:
        return
    STAMP.write_text(json.dumps({"interpreter": interpreter}))  # until all is done

    limited = bool(found or graphnet_words)
    extras = ",".join(sys.argv[1:] + ["graphnet"] * limited)
    pip_install("--editable", f".[{extras}]", limited=limited)
    if graphnet_words and graphnet_words != done.get("graphnet"):
        missing = [name for name in TORCH_EXTENSIONS if name not in probe()[1]]
        if missing:
            pip_install("setuptools", "wheel", limited=True)
            pip_install("--no-build-isolation", *missing, limited=True)
        pip_install(*graphnet_words, limited=True)

    state["found"] = probe()[0]
    if graphnet_words:
        run(PYTHON, "-c", "import graphnet.models")
    STAMP.write_text(json.dumps(state))
    print("GraphNeT:", state["found"] or "not found, its tests will be skipped")


if __name__ == "__main__":
    main()
