"""Criteria: how important each weight is. A criterion is one expression over one tensor; anything costly is a signal in `needs`.

Traits that a criterion may state beside its signals:

    level    "weight" (scores of the weight's shape, the default) or "unit" (one score an output unit)
    units    how the scores of all that a piece covers become the piece's: "norm" (L1, L2 or Linf, as the caller asks), "sum" (the size of
             their sum), "signed-sum" (their sum, for changes of the loss that may be negative), "squared-sum" or "draw" (one of them)
    compare  "row": selection within each output row instead of the whole layer (`selection.py`); the option `compare` overrides it
    rounds   how many rounds of score and prune `prune` makes by default, on a geometric schedule; the option `rounds` overrides it
    elementwise   each score depends on that weight and the same entries of its signals alone: scores are computed when they are read
    solver   what adapts the kept weights after selection (`solvers.py`); the option `update=False` leaves them as they are

Keyword-only parameters are options of the user's; those of the signals in `needs` are options of the criterion, too.
"""

from prunescope.pruning.criteria import activity, gradients, informative, layerwise, loss_change, weights

__all__ = ["activity", "gradients", "informative", "layerwise", "loss_change", "weights"]
