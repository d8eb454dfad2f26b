"""Compacting every network of the zoo: the same outputs as the masked network, at least 95 % of what the masks make removable gone.

Each network is tried with one of the 18 combinations of fraction, criterion and extent of the masks, every fourth with a second one in
float64; `PRUNESCOPE_ZOO=full` tries all 18 on every network, in float32 and in float64.
"""

import copy
import functools
import itertools
import os

import pytest
import torch

import prunescope as ps
from prunescope.pruning.coupling import Coupling, couple
from zoo import ZOO, difference
from zoo.masking import CRITERIA, EXTENTS, FRACTIONS, masked, masks_for, removable

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of the largest output
LEAST = 0.95  # of what the masks make removable; with channels masked as a whole, for the other extents promise no less to remove
LONG = ("hf_t5",)  # many seconds: in the full run alone
SINGLE = ("hf_llama", "hf_t5")  # whose norms compute in single precision whatever they are given: the masked network is no closer to itself
NOISY = ("llama",)  # at 90 % the masked network is 2e-5 from itself in double precision: what is left has to be as near to either of them
# (network, extent) -> the share that goes at least: exact as all are, but what makes a unit is masked and not what is left of it in packed
# projections, embeddings or cells
HALVES = {
    ("attention", "units"): 0.88, ("encoderdecoder", "units"): 0.88, ("pooledattention", "units"): 0.92, ("einsumattention", "units"): 0.24,
    ("einsumattention", "weights"): 0.29, ("textbag", "units"): 0.42, ("textbag", "weights"): 0.47,
    ("cells", "units"): 0.0, ("translator", "units"): 0.0,  # nothing: they are here for their outputs
}  # fmt: skip
TIGHT = {("projectedlstm", 0.9): 0.93}  # torch's LSTM has to have more hidden units than projected ones, and one is left
pytestmark = pytest.mark.filterwarnings("ignore")


def combinations() -> list:
    """(network, fraction, criterion, extent, precision) of all cases to try."""
    cases = []
    for number, name in enumerate(ZOO):
        full = os.environ.get("PRUNESCOPE_ZOO") == "full"
        if name in LONG and not full:
            continue
        if full:
            chosen = list(itertools.product(FRACTIONS, CRITERIA, EXTENTS, TOLERANCE))
        else:
            criterion = CRITERIA[number // 3 % 2]
            other = CRITERIA[1 - number // 3 % 2]
            extent = EXTENTS[1 + number % 2]
            chosen = [
                (FRACTIONS[number % 3], criterion, "whole", torch.float32),
                (FRACTIONS[(number + 1) % 3], other, extent, torch.float64),
            ][: 2 if number % 4 == 0 or any(name == n for n, _ in HALVES) else 1]
        for fraction, criterion, extent, dtype in chosen:
            label = f"{name}-{fraction:.0%}-{criterion}-{extent}-{str(dtype).removeprefix('torch.')}"
            cases.append(pytest.param(name, fraction, criterion, extent, dtype, id=label))
    return cases


@functools.lru_cache(maxsize=1)  # the cases of one network come one after another
def coupled(name: str) -> Coupling:
    """The network's coupled channels, which no precision changes."""
    return couple(*ZOO[name]())


@pytest.mark.parametrize(("name", "fraction", "criterion", "extent", "dtype"), combinations())
def test_compacted_networks_compute_what_the_masked_ones_do(name, fraction, criterion, extent, dtype):
    member = ZOO[name]
    if member.missing:
        pytest.skip(f"{name} needs {member.missing}: pip install 'prunescope[hf]'")
    model = member()[0].to(dtype)
    inputs = member.inputs(dtype=dtype)
    coupling = coupled(name)
    masks = masks_for(model, coupling, fraction, criterion, extent)
    expected, bound = masked(model, masks), removable(model, coupling, masks)
    sizes = [member.inputs(batch, seed=1, dtype=dtype) for batch in (1, 7)]
    sizes += [member.inputs(3, other=True, seed=1, dtype=dtype)] if member.resizable else []
    if extent == "whole":
        assert bound == sum(int((~m).sum()) for m in masks.values()) > 0, "masks of channels are whole pieces and nothing else"
    assert difference(expected, model, sizes[1]) > TOLERANCE[dtype], "pruning shows"
    before = {n: t.clone() for n, t in model.state_dict().items()}
    small, report = ps.compact(model, masks, example_inputs=inputs)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items()), "the user's model stays as it is"
    errors = [difference(small, expected, size) for size in sizes]
    if name in NOISY:  # tokens go in, which have no precision
        wide = copy.deepcopy(expected).double()
        errors = [min(error, difference(small, wide, size)) for error, size in zip(errors, sizes, strict=True)]
    tolerance = TOLERANCE[torch.float32 if name in SINGLE else dtype]
    assert max(errors) <= tolerance, f"relative errors {errors} at batch 1, 7 and the second size; {report}"
    count, left = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    least = HALVES.get((name, extent), TIGHT.get((name, fraction), LEAST))
    assert count - left >= least * bound, f"{count - left} of {bound} removable parameters went; {report}"
