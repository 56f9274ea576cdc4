"""Simulated events of KM3NeT beside those of its own simulation.

    python benchmarks/bench_water.py --out benchmarks/results
    python benchmarks/bench_water.py --toy

The files are those of km3net-testdata (MIT): a few hundred events of ORCA and ARCA with
truth, simulated by KM3NeT with its own programs. `prepare` reads them, `simulate` makes
events of the same detector, flavour and energies, with the noise rate of the file, and
both stores are counted by the same code. `--out` also draws docs/images/water.png.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import context
import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd import EventStore, build_detector, prepare, simulate
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.simulation import SimulatedDetector, SimulationConfig

ORCA6 = (
    "KM3NeT_00000049_00011291.mc.gsg_neutrinos.km3sim_sirene_merged.jterbr."
    "jppmuon_jppshower_static.offline.v9.2.sample.root"
)
MUONS = (
    "mcv6.0.gsg_muon_highE-CC_50-500GeV.km3sim.jterbr00008357.jorcarec.aanet.905.root"
)
ELECTRONS = (
    "mcv5.0.gsg_elec-CC_10-100GeV.km3sim.JDK.jte.jmergefit.orca.909.evtsample.root"
)
ARCA = "mcv6.gsg_nue-CCHEDIS_1e4-1e6GeV.sirene.jte.jchain.aanet.1.root"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "water.png"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Events of one kind in a file, and how they are simulated."""

    file: str
    detector: str
    topology: str
    pdg: int  # of the neutrinos, without sign
    energies: tuple[float, float]  # GeV
    index: float  # of the spectrum


CASES = {
    "ORCA6, muons that start inside": Case(
        file=MUONS,
        detector="orca6",
        topology="starting_track",
        pdg=14,
        energies=(50.0, 500.0),
        index=2.0,
    ),
    "ORCA6, muons from outside": Case(
        file=MUONS,
        detector="orca6",
        topology="through_going_track",
        pdg=14,
        energies=(50.0, 500.0),
        index=2.0,
    ),
    "ORCA6, electron neutrinos": Case(
        file=ORCA6,
        detector="orca6",
        topology="cascade",
        pdg=12,
        energies=(5.0, 3000.0),
        index=1.0,
    ),
    "ORCA115, electron neutrinos": Case(
        file=ELECTRONS,
        detector="orca115",
        topology="cascade",
        pdg=12,
        energies=(10.0, 100.0),
        index=2.0,
    ),
    "ARCA115, electron neutrinos": Case(
        file=ARCA,
        detector="arca115",
        topology="cascade",
        pdg=12,
        energies=(1e4, 1e6),
        index=1.4,
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """What is counted in a store."""

    energy_B: NDArray[Any]
    triggered_B: NDArray[Any]  # pulses with the trigger flag
    pulses_B: NDArray[Any]
    rate_B: NDArray[Any]  # other pulses per PMT and time, kHz
    tot_triggered_T: NDArray[Any]
    tot_other_T: NDArray[Any]


def counts_of(store: EventStore, events: NDArray[Any], num_pmts: int) -> Counts:
    """Count pulses of some events."""
    read = EventReader(store, max_pulses=None, truth=()).raw(events)
    columns = {name: value.numpy() for name, value in read.columns.items()}
    offsets = read.offsets.numpy()
    flag_T = columns["hlc"] > 0.5
    triggered_B = np.add.reduceat(flag_T.astype(int), offsets[:-1])
    pulses_B, time_T = np.diff(offsets), columns["time"].astype(float)
    span_B = np.maximum.reduceat(time_T, offsets[:-1]) - np.minimum.reduceat(
        time_T, offsets[:-1]
    )
    return Counts(
        energy_B=store.whole_event_column("energy")[events],
        triggered_B=triggered_B,
        pulses_B=pulses_B,
        rate_B=(pulses_B - triggered_B) / (span_B * 1e-6 * num_pmts),
        tot_triggered_T=columns["tot"][flag_T],
        tot_other_T=columns["tot"][~flag_T],
    )


def real_counts(case: Case, path: Path, folder: Path) -> Counts:
    """Count pulses of the events of a case in a file of KM3NeT."""
    if not (folder / "manifest.json").exists():
        prepare(path, folder, workers=1)
    store = EventStore(folder)
    simulated = SimulatedDetector.of(case.detector)
    truth = {
        name: store.whole_event_column(name)
        for name in ("pid", "energy", *(f"position_{axis}" for axis in "xyz"))
    }
    place_B3 = np.stack([truth[f"position_{axis}"] for axis in "xyz"], axis=1)
    # KM3NeT's simulations have zeros of their own: the middle of the triggered pulses'
    # detector, from all pulses of the file.
    read = EventReader(store, max_pulses=None, truth=()).raw(np.arange(len(store)))
    place_T3 = np.stack([read.columns[axis].numpy() for axis in "xyz"], axis=1)
    centre = 0.5 * (place_T3.min(axis=0) + place_T3.max(axis=0))
    away_B3, volume = place_B3 - centre, simulated.volume
    energy_B = truth["energy"]
    if case.topology == "cascade":
        margin_B = 60.0 + 25.0 * np.log10(energy_B / 100.0)
    else:
        margin_B = np.minimum(10.0 + 10.0 * np.log10(energy_B), 60.0)
    half = 0.5 * (volume.top - volume.bottom)
    inside_B = np.hypot(away_B3[:, 0], away_B3[:, 1]) < volume.radius + margin_B
    inside_B &= np.abs(away_B3[:, 2]) < half + margin_B
    chosen_B = np.abs(truth["pid"]) == case.pdg
    chosen_B &= (energy_B >= case.energies[0]) & (energy_B <= case.energies[1])
    chosen_B &= inside_B == (case.topology != "through_going_track")
    num_pmts = len(simulated) * simulated.module.pmts
    return counts_of(store, np.flatnonzero(chosen_B), num_pmts)


def simulated_counts(
    case: Case, rate: float, events: int, folder: Path
) -> tuple[Counts, float]:
    """Count pulses of simulated events of a case, and say how long one took, s."""
    detector = build_detector(case.detector)
    config = SimulationConfig.of(
        detector,
        fractions={case.topology: 1.0},
        energy_range=case.energies,
        spectral_index=case.index,
        noise_rate=rate,
    )
    begun = time.process_time()
    simulate(
        folder, num_events=events, seed=1, config=config, detector=detector, workers=1
    )
    took = time.process_time() - begun
    store = EventStore(folder)
    chosen_B = np.abs(store.whole_event_column("pid")) == case.pdg
    chosen_B &= store.whole_event_column("interaction_type") == 1
    simulated = SimulatedDetector.of(case.detector)
    num_pmts = len(simulated) * simulated.module.pmts
    return counts_of(store, np.flatnonzero(chosen_B), num_pmts), took / events


def reweighted(real: Counts, made: Counts) -> Counts:
    """Return simulated events with about the energies of the real ones.

    Each real event gets the simulated ones nearest in energy.
    """
    order = np.argsort(made.energy_B)
    place_B = np.searchsorted(made.energy_B[order], real.energy_B)
    rows = np.clip(place_B[:, None] + np.arange(-5, 5), 0, len(order) - 1)
    chosen = order[rows.ravel()]
    names = ("energy_B", "triggered_B", "pulses_B", "rate_B")
    return replace(made, **{name: getattr(made, name)[chosen] for name in names})


def measure(
    events: int, names: list[str], folder: Path
) -> tuple[dict[str, Any], dict[str, tuple[Counts, Counts]]]:
    """Compare the cases."""
    import km3net_testdata

    found, both, speeds = {}, {}, {}
    for number, name in enumerate(names):
        case = CASES[name]
        path = Path(km3net_testdata.data_path(f"offline/{case.file}"))
        real = real_counts(case, path, folder / case.file)
        rate = 1e3 * float(np.median(real.rate_B))
        made, took = simulated_counts(case, rate, events, folder / str(number))
        both[name] = (real, made)
        near = reweighted(real, made)
        speeds[case.detector] = 1.0 / took
        found[name] = {
            "events": [len(real.energy_B), len(made.energy_B)],
            "energy": float(np.median(real.energy_B)),
            **{
                quantity: [
                    float(np.median(getattr(counts, f"{quantity}_B")))
                    for counts in (real, near)
                ]
                for quantity in ("triggered", "pulses", "rate")
            },
            **{
                f"tot_{kind}": [
                    np.quantile(getattr(counts, f"tot_{kind}_T"), QUANTILES).tolist()
                    for counts in (real, made)
                ]
                for kind in ("triggered", "other")
            },
        }
    return {
        "context": context.describe(cores_used=1, simulated_events=events),
        "events_per_cpu_second": speeds,
        "cases": found,
    }, both


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a page."""
    lines = [
        "# Simulated events of KM3NeT and those of its own simulation",
        "",
        context.table(result["context"]),
        "",
        "Medians of events; the simulated ones have the energies of the others.",
        "",
        "| | events | median energy, GeV | triggered pulses | all pulses | ToT of "
        "triggered pulses, 5, 25, 50, 75, 95% | of others |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in result["cases"].items():
        for which in (0, 1):
            kind = ("KM3NeT", "here")[which]
            tots = [
                ", ".join(f"{value:.0f}" for value in figures[f"tot_{k}"][which])
                for k in ("triggered", "other")
            ]
            lines.append(
                f"| {name}, {kind} | {figures['events'][which]} | "
                f"{figures['energy']:.0f} | {figures['triggered'][which]:.0f} | "
                f"{figures['pulses'][which]:.0f} | {tots[0]} | {tots[1]} |"
            )
    ratios = [c["triggered"][1] / c["triggered"][0] for c in result["cases"].values()]
    speeds = ", ".join(
        f"{name} {speed:.0f}" for name, speed in result["events_per_cpu_second"].items()
    )
    lines += [
        "",
        f"Triggered pulses here over KM3NeT's: {min(ratios):.2f} to {max(ratios):.2f}.",
        "",
        f"Simulated and stored events per second of one core: {speeds}.",
    ]
    return "\n".join(lines) + "\n"


def draw(both: dict[str, tuple[Counts, Counts]], path: Path) -> None:
    """Draw triggered pulses against energy, and the time over threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for axes, (name, (real, made)) in zip(panels, both.items(), strict=False):
        borders = np.quantile(made.energy_B, np.linspace(0, 1, 9))
        place = np.digitize(made.energy_B, borders[1:-1])
        low, middle, high = (
            [np.quantile(made.triggered_B[place == n], q) for n in range(8)]
            for q in (0.16, 0.5, 0.84)
        )
        energy = [np.median(made.energy_B[place == n]) for n in range(8)]
        axes.fill_between(energy, low, high, alpha=0.3, color="C0")
        axes.plot(energy, middle, color="C0", label="here, median and 68%")
        axes.plot(real.energy_B, real.triggered_B, "k.", label="KM3NeT's simulation")
        axes.set(xscale="log", yscale="log", title=name)
        axes.set(xlabel="energy [GeV]", ylabel="triggered pulses")
        if made.energy_B.max() < 30 * made.energy_B.min():
            ticks = [10, 20, 50, 100, 200, 500]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlim(0.9 * real.energy_B.min(), 1.1 * real.energy_B.max())
        axes.tick_params(axis="x", which="minor", labelbottom=False)
    panels[0].legend()
    last = panels[len(both)]
    bins = np.arange(0, 121, 3)
    for kind, style in (("triggered", "-"), ("other", "--")):
        for which, colour in ((0, "k"), (1, "C0")):
            tot = np.concatenate(
                [getattr(pair[which], f"tot_{kind}_T") for pair in both.values()]
            )
            last.hist(
                tot,
                bins,
                density=True,
                histtype="step",
                color=colour,
                linestyle=style,
                label=f"{('KM3NeT', 'here')[which]}, {kind}",
            )
    last.set(yscale="log", xlabel="time over threshold [ns]", ylabel="density")
    last.legend(fontsize="small", loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=512, help="of each case")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    names = list(CASES)
    if arguments.toy:
        arguments.events, names = 60, names[:1]
    with tempfile.TemporaryDirectory() as folder:
        result, both = measure(arguments.events, names, Path(folder))
    context.write(arguments.out, "water", markdown(result), result)
    if arguments.out:
        draw(both, PICTURE)


if __name__ == "__main__":
    main()
