"""prunescope: prune any PyTorch network and see what it does to accuracy, size, speed and the flow of information.

The public verbs are imported when they are first used, so that `import prunescope` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "prune": "prunescope.pruning",
    "Masks": "prunescope.pruning",
    "Pruner": "prunescope.pruning",
    "export_model": "prunescope.export",
    "compact": "prunescope.pruning.compact",
    "load_compact": "prunescope.pruning.compact",
    "save_compact": "prunescope.pruning.compact",
    "CompactReport": "prunescope.pruning.compact",
    "from_torch_prune": "prunescope.integrations.torchprune",
    "to_torch_prune": "prunescope.integrations.torchprune",
    "InformationPlane": "prunescope.measures.flow",
    "mutual_information": "prunescope.information",
    "entropy": "prunescope.information",
    "measure": "prunescope.measures",
    "bench": "prunescope.measures",
    "quantize": "prunescope.quantization",
    "run": "prunescope.experiments.run",
    "plan": "prunescope.experiments.run",
    "search": "prunescope.experiments.search",
    "load": "prunescope.results",
    "compare": "prunescope.report.comparison",
    "Comparison": "prunescope.report.comparison",
    "figures": "prunescope.report.figures",
    "cite": "prunescope.report.citation",
    "Estimate": "prunescope.types",
    "Dataset": "prunescope.types",
    "Split": "prunescope.types",
    "PrunescopeError": "prunescope.types",
}

if TYPE_CHECKING:
    from prunescope.experiments.planning import plan
    from prunescope.experiments.run import run
    from prunescope.experiments.search import search
    from prunescope.export import export_model
    from prunescope.information import entropy, mutual_information
    from prunescope.integrations.torchprune import from_torch_prune, to_torch_prune
    from prunescope.measures import bench, measure
    from prunescope.measures.flow import InformationPlane
    from prunescope.pruning import Masks, Pruner, prune
    from prunescope.pruning.compact import CompactReport, compact, load_compact, save_compact
    from prunescope.quantization import quantize
    from prunescope.report.citation import cite
    from prunescope.report.comparison import Comparison, compare
    from prunescope.report.figures import figures
    from prunescope.results import load
    from prunescope.types import Dataset, Estimate, PrunescopeError, Split

__all__ = [
    "CompactReport",
    "Comparison",
    "Dataset",
    "Estimate",
    "InformationPlane",
    "Masks",
    "Pruner",
    "PrunescopeError",
    "Split",
    "__version__",
    "bench",
    "cite",
    "compact",
    "compare",
    "entropy",
    "export_model",
    "figures",
    "from_torch_prune",
    "load",
    "load_compact",
    "measure",
    "mutual_information",
    "plan",
    "prune",
    "quantize",
    "run",
    "save_compact",
    "search",
    "to_torch_prune",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'prunescope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
