"""What a forward pass takes on several back-ends, in turns: the rows of an experiment, where `bench` makes a table of networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunescope.measures.backends import Call, Job, Prepared, prepare
from prunescope.measures.quality import Measurement
from prunescope.measures.speed import batch
from prunescope.measures.timing import compared, synchroniser
from prunescope.registry import backends as registered
from prunescope.types import PrunescopeError

METRIC = "backend_ms"


def backend_times(
    model: nn.Module, x: Tensor, names: Sequence[str], *, batch_size: int = 64, threads: int = 1, seconds: float = 0.2
) -> list[Measurement]:
    """Median milliseconds of processor time for a pass of `batch_size` samples, one measurement a back-end, the parameters naming it.

    Sparse back-ends convert every layer that they can, also where that is slower: the point is to see from which sparsity on it is not.
    A back-end that cannot run the network gives NaN with the reason. With one thread processor time is that of the pass alone, and
    other work on the machine counts for little.
    """
    given = batch(x, batch_size)
    ready: dict[str, Prepared] = {}
    reasons: dict[str, str] = {}
    for name in names:
        job = Job(model, given, threads, threshold=0.0)
        try:
            ready[name] = prepare(name, job)
        except PrunescopeError as error:
            reasons[name] = str(error)
    how = {"seconds": seconds, "threads": threads, "clock": "processor", "synchronise": synchroniser(given.device)}
    with torch.no_grad():
        times = compared({n: Call(r, given) for n, r in ready.items()}, **how) if ready else {}  # type: ignore[arg-type]
    found = []
    for name in names:
        sparse = bool(registered.get(name).traits.get("sparse"))
        detail = {"backend": name, "sparse": sparse, "batch_size": batch_size, "threads": threads, "device": str(given.device)}
        if name in times:
            detail |= {"interval_ms": [round(v, 6) for v in times[name].interval], "error": ready[name].error}
            found.append(Measurement(METRIC, times[name].median, "ms", n=len(times[name].blocks), parameters=detail))
        else:
            found.append(Measurement(METRIC, float("nan"), "ms", n=0, parameters={**detail, "reason": reasons[name]}))
    return found
