"""What several tests of experiments compare with."""

import pytest
from clustered import SMALL

import prunescope as ps


@pytest.fixture(scope="session")
def serial(tmp_path_factory):
    """The small experiment of `clustered`, carried out in this process, one trial after the other."""
    return ps.run(SMALL, out=tmp_path_factory.mktemp("serial") / "small", engine="serial", stack="off")
