"""Workers of a data loader that outlive what they were made for."""

from __future__ import annotations

import subprocess
import sys

# As a trainer that is over: loader and workers are held by a cycle that nobody has cleared.
PROGRAM = """
import os, signal, sys
from torch.utils.data import DataLoader
from qvft.training.batches.loader_workers import with_own_seeds

loader = DataLoader(range(8), batch_size=1, num_workers=1, persistent_workers=True)
batches = iter(with_own_seeds(loader))
found = [int(next(batches))]
os.kill(batches._workers[0].pid, signal.SIGTERM)
found += [int(batch) for batch in batches]
print(found, batches._workers[0].is_alive())
sys.modules["held"] = [loader, batches]
"""


def test_workers_are_deaf_to_sigterm_until_their_main_process_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[0, 1, 2, 3, 4, 5, 6, 7] True\n"
