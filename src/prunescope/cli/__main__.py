"""`python -m prunescope.cli`: the command line without an installed script."""

from prunescope.cli import main

main()
