"""README and the pages of docs: their scripts run, commands and figures are true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if path.name != "changelog.md"
}
LIBRARIES = {  # what a page's scripts need beside the core
    "calibration.md": ("pyarrow", "scipy"),
    "data.md": ("pyarrow", "pandas", "pytorch_lightning", "scipy"),
    "extend.md": ("pyarrow", "pytorch_lightning", "scipy"),
    "get_started.md": ("pyarrow", "scipy"),
    "reconstruction.md": ("pyarrow", "scipy"),
    "reports.md": ("pyarrow", "scipy", "matplotlib"),
    "simulation.md": ("pyarrow", "scipy"),
    "training.md": ("pyarrow", "pytorch_lightning", "scipy"),
    "transfer.md": ("pyarrow", "pytorch_lightning", "scipy"),
}


def scripts(page: str) -> list[str]:
    """The python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def pages(with_graphnet: bool) -> list[str]:
    """Pages that have scripts, those with GraphNeT or the others."""
    found = {page: "\n".join(scripts(page)) for page in PAGES}
    return [
        page
        for page, text in found.items()
        if text and ("\nfrom graphnet." in f"\n{text}") is with_graphnet
    ]


@pytest.fixture
def own_registries() -> Iterator[None]:
    """Scripts may register names that other tests register too."""
    from graphnet_icecube2nd.detector.detector import DETECTORS
    from graphnet_icecube2nd.models.registry import MODELS
    from graphnet_icecube2nd.tasks.task import TASKS

    registries = (DETECTORS, MODELS, TASKS)
    before = [dict(registry._entries) for registry in registries]
    for registry in registries:
        for name in ("ring", "mean_pool", "log_light", "light_width"):
            registry._entries.pop(name, None)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries


def run(page: str) -> dict[str, object]:
    """Run the scripts of a page one after the other, as a reader does."""
    names: dict[str, object] = {"__name__": "__main__"}
    for number, script in enumerate(scripts(page), 1):
        exec(compile(script, f"{page}, script {number}", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:.*(outside the range|not marked)")
@pytest.mark.parametrize("page", pages(with_graphnet=False))
def test_scripts_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registries: None
) -> None:
    for library in LIBRARIES.get(page, ()):
        pytest.importorskip(library)
    if page == "published.md":  # the competition's weights, as far as shapes go
        meta = json.loads((ROOT / "tests" / "golden" / "s_gnn.json").read_text())
        state = {name: torch.zeros(s) for name, s in meta["state_dict"].items()}
        torch.save(state, tmp_path / "V22FT6_1.pth")
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.graphnet
@pytest.mark.filterwarnings("ignore:.*no `val_dataloader`")
@pytest.mark.parametrize("page", pages(with_graphnet=True))
def test_scripts_with_graphnet_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_graphnet: None
) -> None:
    from graphnet.constants import EXAMPLE_DATA_DIR

    if not Path(EXAMPLE_DATA_DIR, "sqlite").is_dir():
        pytest.skip("this GraphNeT came without its example data")
    monkeypatch.chdir(tmp_path)
    table = run(page)["table"]
    wanted = {"dir_x_pred", "dir_y_pred", "dir_z_pred", "direction_kappa", "event_no"}
    assert wanted <= {*table.columns}  # type: ignore[attr-defined]


def test_there_are_pages_with_graphnet() -> None:
    assert {"README.md", "graphnet.md"} <= {*pages(with_graphnet=True)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_are_known(page: str) -> None:
    """Each option of a page's command lines is one of the command's."""
    pytest.importorskip("typer")
    from typer.main import get_command

    from graphnet_icecube2nd.commands.app import app

    text = PAGES[page].replace("\\\n", " ")
    for line in re.findall(r"^icecube2nd (.*)$", text, re.MULTILINE):
        command = get_command(app)
        words = line.partition(" #")[0].split()
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        asked = {word for word in words if word.startswith("--")}
        assert asked <= known, (line, asked - known)


def test_every_command_stands_on_a_page() -> None:
    pytest.importorskip("typer")
    from typer.main import get_command

    from graphnet_icecube2nd.commands.app import app

    text = "\n".join(PAGES.values())
    there = {*re.findall(r"icecube2nd ([a-z-]+)", text)}
    assert {*get_command(app).commands} <= there  # type: ignore[attr-defined]


def test_table_of_parameters_is_true() -> None:
    from graphnet_icecube2nd import build_model, list_models

    rows = re.findall(
        r"^\| `(\w+)` \| [^|]* \| ([\d,]+) \|", PAGES["published.md"], re.M
    )
    stated = {name: int(number.replace(",", "")) for name, number in rows}
    assert set(stated) <= set(list_models())
    assert {"b_d32", "b_gnn", "t_sim"} <= set(stated)
    with torch.device("meta"):
        counted = {
            name: sum(p.numel() for p in build_model(name).parameters())
            for name in stated
        }
    assert counted == stated


def test_columns_of_all_tasks_stand_in_the_table_of_results() -> None:
    from graphnet_icecube2nd import build_task

    text = PAGES["reconstruction.md"]
    for name in ("direction", "energy", "track"):
        for column in build_task(name).columns:
            shown = re.sub(r"^direction(_[yz])$", r"\1", column.name)
            assert f"`{shown}`" in text, column.name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files that a page links to are there; `make docs` looks at headings too."""
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)#\s]+)", PAGES[page]):
        if not link.startswith("http"):
            assert (folder / link).exists(), link
