"""Loading holds little memory, whatever the size of the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from graphnet_icecube2nd import EventDataModule, PulseMap
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.readers.source import EventChunk, Part, Source

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

LENGTHS = np.full(2000, 300)
OFFSETS = np.append(0, np.cumsum(LENGTHS))
COLUMNS = {
    "sensor_id": np.zeros(OFFSETS[-1], np.int16),
    "time": np.tile(np.arange(300) + 9000, 2000),
    "charge": np.ones(OFFSETS[-1]),
    "auxiliary": np.zeros(OFFSETS[-1], bool),
}

class Generated(Part):
    name = "generated"
    def fingerprint(self):
        return {}
    def chunks(self, max_pulses):
        for repeat in range(60):
            yield EventChunk(columns=COLUMNS, offsets=OFFSETS,
                             event_id=2000 * repeat + np.arange(2000))

names = tuple(COLUMNS)
source = Source(kind="test", pulse_map=PulseMap.kaggle(), parts=[Generated()],
                pulse_columns=names)
convert(source, sys.argv[1], workers=1, shard_pulses=2_000_000)
before = anonymous()
data = EventDataModule(sys.argv[1], num_sub_epochs=1)
peak = before
for number, batch in enumerate(data.train_dataloader()):
    if number % 200 == 0:
        peak = max(peak, anonymous())
print(number, peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_pass_over_400_MB(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    batches, grown = done.stdout.split()
    assert int(batches) > 3000
    size = sum(file.stat().st_size for file in tmp_path.rglob("pulses.arrow"))
    assert size > 390e6
    assert float(grown) < 150, "MB of anonymous memory"
