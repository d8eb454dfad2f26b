"""Runs of an experiment in processes that can be killed, for the tests of checkpoints: forked, so that only the first one imports anything.

Epochs are written down as they begin, and are the clock of the checkpoints: their interval counts epochs, whatever the machine does.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
import types
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["prunescope.experiments", "prunescope.information.knn", "torchao.quantization.qat", "sklearn.datasets"])


def start(config: dict, folder: Path, log: Path, **options) -> multiprocessing.Process:
    """A run in a process of its own; `options` are those of `_work` and of `run`."""
    process = CONTEXT.Process(target=_work, args=(config, folder, log), kwargs=options)
    process.start()
    return process


def _work(config: dict, folder: Path, log: Path, *, kill_at: int = 0, kill_after: float = 0.0, kill_writing: float = 0, **options) -> None:
    """A run that dies at the beginning of its epoch number `kill_at` (from 1), `kill_after` seconds of processor time, or at a file.

    kill_writing   k: before the k-th file is renamed into its place; k + 0.5: right after that
    """
    import torch

    from prunescope.experiments import checkpoints, run
    from prunescope.training import loop, rows

    torch.set_num_threads(1)
    begun = written = 0
    stacked, alone, replace = rows.StackedRows.epoch, loop.batches, Path.replace

    def note(phase: str, epoch: int, count: int) -> None:
        nonlocal begun
        begun += 1
        with log.open("a") as lines:
            lines.write(json.dumps([phase, epoch, count]) + "\n")
        if begun == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def stacked_epoch(self, seeds, *purpose):
        note(purpose[0], purpose[2], len(seeds))
        return stacked(self, seeds, *purpose)

    def alone_epoch(data, size, *, drop_last, seed, purpose):
        note(purpose[0], purpose[2], 1)
        return alone(data, size, drop_last=drop_last, seed=seed, purpose=purpose)

    def replaced(self, target):
        nonlocal written
        written += 1
        if written == kill_writing:
            os.kill(os.getpid(), signal.SIGKILL)
        found = replace(self, target)
        if written + 0.5 == kill_writing:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    rows.StackedRows.epoch, loop.batches, Path.replace = stacked_epoch, alone_epoch, replaced
    checkpoints.time = types.SimpleNamespace(monotonic=lambda: begun)
    if kill_after:  # the signal's default is the end, at once, wherever the process is
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, kill_after)
    try:
        run(config, out=folder, engine="serial", **options)
    except BaseException:
        with contextlib.suppress(OSError):
            log.with_suffix(".error").write_text(traceback.format_exc())
        sys.exit(1)
