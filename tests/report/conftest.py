"""Made-up runs for the report's tests."""

import pytest
from fakerun import Made, make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def small_run(tmp_path):
    """One variant beside the baseline, no groups, two seeds."""
    made = Made(variants={"baseline": ((None,), False), "weights": ((0.5, 0.9), False)}, groups=("",), seeds=2, epochs=3, finetune=1)
    return make_run(tmp_path, made)
