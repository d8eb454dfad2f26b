"""Optional packages: imported where they are used, quietly, or one line that names the extra which brings them."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from prunescope.types import MissingExtraError


def load(module: str, *, extra: str, purpose: str) -> Any:
    """The module called `module`, imported now. Raises MissingExtraError, which says what it is for and how to get it.

    >>> load("json", extra="export", purpose="an example").dumps([1])
    '[1]'
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{purpose} needs the package {package} ({error}): pip install 'prunescope[{extra}]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed, logged or warned inside: kernels that this machine lacks, graphs of a tracing that failed. Errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
