"""The command line in the test's own process."""

import sys

from prunescope import cli


def prunescope(monkeypatch, *words: object) -> int:
    """The exit code of `prunescope WORDS`."""
    monkeypatch.setattr(sys, "argv", ["prunescope", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0
