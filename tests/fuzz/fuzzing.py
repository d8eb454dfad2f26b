"""Fuzzing for as long as one likes: `python tests/fuzz/fuzzing.py --inputs 100000`, which ends with figures and keeps what failed.

A child process works, under a limit on its memory and on the processor time of each input; this one notes what kills or hangs it and goes
on behind that input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
SECONDS = 10.0  # of processor time for one input
ROOM = 1 << 30  # bytes of memory beyond what the program takes before it reads anything


class Hung(BaseException):
    """An input took too long."""


def hung(*_: object) -> None:
    raise Hung


def signature(kind: str, error: BaseException) -> str:
    """What two inputs have in common that fail in the same way: the error's type and our last line on the way to it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/prunescope/" in f.filename] or frames
    return f"{kind} {type(error).__name__} {Path(ours[-1].filename).stem}:{ours[-1].name}"


def one(kind: str, content: bytes, folder: Path, keep: Path, found: Counter[str]) -> None:
    """Judge one input; what fails is kept, the first three of each signature."""
    import targets

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        targets.check(kind, content, folder)
    except (Exception, Hung) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found[name := signature(kind, error)] += 1
        if found[name] <= 3:
            (place := keep / kind).mkdir(parents=True, exist_ok=True)
            file = place / f"{hashlib.sha256(content).hexdigest()[:12]}.bin"
            file.write_bytes(content)
            told = "".join(traceback.format_exception(error))[-1500:]
            print(f"FAULT {name}: {file}\n{told}", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def work(arguments: argparse.Namespace) -> None:
    """The child: inputs `first` to `inputs`, each by its number alone, so that any of them can be made again."""
    import targets

    signal.signal(signal.SIGPROF, hung)
    kinds = [k for k in targets.KINDS if not arguments.kind or k in arguments.kind]
    shares = [targets.KINDS[k].share for k in kinds]
    seeds = {k: targets.KINDS[k].seeds() for k in kinds}
    keep, found, counts, state = Path(arguments.keep), Counter[str](), Counter[str](), Path(arguments.state)
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds:
            (Path(name) / kind).mkdir()
            for seed in seeds[kind]:
                one(kind, seed, Path(name) / kind, keep, found)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
        for number in range(arguments.first, arguments.inputs):
            rng = Random(f"{arguments.seed} {number}")
            kind = rng.choices(kinds, shares)[0]
            content = targets.KINDS[kind].make(rng.choice(seeds[kind]), rng)
            if number % 20 == 0 or arguments.careful:
                state.write_text(json.dumps({"number": number, "kind": kind, "counts": counts, "found": found}))
            counts[kind] += 1
            one(kind, content, Path(name) / kind, keep, found)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = {"seconds": round(time.process_time() - began, 1), "mib_before": before >> 10, "mib_peak": peak >> 10}
        state.write_text(json.dumps({"number": arguments.inputs, "counts": counts, "found": found, **used}))


def drive(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the child again behind every input that kills it; figures of all."""
    total: dict[str, Any] = {"counts": Counter(), "found": Counter(), "seconds": 0.0, "mib_before": 0, "mib_peak": 0}
    first, careful = arguments.first, False
    while first < arguments.inputs:
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.json"
            words = [f"--first={first}", f"--inputs={arguments.inputs}", f"--seed={arguments.seed}", f"--keep={arguments.keep}"]
            words += [f"--kind={k}" for k in arguments.kind] + (["--careful"] if careful else [])
            child = subprocess.Popen([sys.executable, __file__, "--child", f"--state={state}", *words], env=environment())
            looked, last = time.monotonic(), ""
            while child.poll() is None:
                time.sleep(1)
                now = state.read_text() if state.exists() else ""
                if now != last or not now:
                    looked, last = time.monotonic(), now
                if time.monotonic() - looked > 600:  # hung in a place where no signal is heard
                    child.kill()
            told = json.loads(state.read_text())
        for key in ("counts", "found"):
            total[key].update(told[key])
        total["seconds"] += told.get("seconds", 0.0)
        total["mib_before"], total["mib_peak"] = (max(total[k], told.get(k, 0)) for k in ("mib_before", "mib_peak"))
        first, was = told["number"], careful
        careful = child.returncode != 0 and not was
        if child.returncode and was:
            print(f"FAULT {told['kind']}: input {first} of seed {arguments.seed} ended the process ({child.returncode})", flush=True)
            total["found"][f"{told['kind']} killed {child.returncode}"] += 1
            first += 1
    return {**total, "inputs": sum(total["counts"].values())}


def environment() -> dict[str, str]:
    """The limits that are tested, and one thread."""
    import targets

    return {**os.environ, "PRUNESCOPE_LIMITS": targets.LIMITS, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--keep", default="fuzz-faults", help="the folder for inputs that fail")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--careful", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work(arguments)
    else:
        print(json.dumps(drive(arguments), indent=1))


if __name__ == "__main__":
    main()
