"""Runs an experiment for the tests of checkpoints, writes down every epoch, and kills itself (SIGKILL) when told to.

    python drive.py CONFIG.json FOLDER LOG KILL_AT INTERVAL STACK

KILL_AT is the number of the epoch of this process at whose beginning it dies (0: never). The clock of the checkpoints is replaced by
the number of epochs begun, so that INTERVAL counts epochs.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from prunescope.experiments import checkpoints, run
from prunescope.training import loop, rows

begun = 0


def note(phase: str, epoch: int, count: int) -> None:
    global begun
    begun += 1
    with LOG.open("a") as log:
        log.write(json.dumps([phase, epoch, count]) + "\n")
    if begun == KILL_AT:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    stacked, alone = rows.StackedRows.epoch, loop.batches

    def stacked_epoch(self, seeds, *purpose):
        note(purpose[0], purpose[2], len(seeds))
        return stacked(self, seeds, *purpose)

    def alone_epoch(data, size, *, drop_last, seed, purpose):
        note(purpose[0], purpose[2], 1)
        return alone(data, size, drop_last=drop_last, seed=seed, purpose=purpose)

    rows.StackedRows.epoch, loop.batches = stacked_epoch, alone_epoch
    checkpoints.time = SimpleNamespace(monotonic=lambda: begun)
    run(json.loads(CONFIG.read_text()), out=FOLDER, engine="serial", stack=STACK, checkpoint=float(INTERVAL))


if __name__ == "__main__":  # pytest's doctests import this file too
    CONFIG, FOLDER, LOG = map(Path, sys.argv[1:4])
    KILL_AT, INTERVAL, STACK = int(sys.argv[4]), sys.argv[5], sys.argv[6]
    main()
