"""How long `prunescope --help` takes, beside a Python that does nothing.

    python benchmarks/startup.py [--repeats 11]

Prints medians in seconds; the goal for --help is below 0.4 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def seconds(command: list[str]) -> float:
    """Wall seconds of one run of `command`."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    for name, words in (("python -c pass", ["-c", "pass"]), ("prunescope --help", ["-m", "prunescope.cli", "--help"])):
        times = [seconds([sys.executable, *words]) for _ in range(repeats + 1)][1:]
        print(f"{name:20s} median {statistics.median(times):.3f} s, fastest {min(times):.3f} s")


if __name__ == "__main__":
    main()
