"""Knowledge distillation: a network learns from what another one, trained before it, says of the same samples.

    loss = (1 - alpha) task(z, y) + alpha T^2 KL(softmax(z_teacher / T) || softmax(z / T))

Hinton, Vinyals & Dean 2015, arXiv:1503.02531: softened probabilities q_i = exp(z_i / T) / sum_j exp(z_j / T) are their equation 1; slopes
of the soft part shrink as 1 / T^2, so it is multiplied by T^2 (section 2). Their cross-entropy differs from KL by the teacher's entropy,
which no weight of the student changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from prunescope.types import ConfigError


@dataclass(frozen=True)
class Distillation:
    """A teacher by its `outputs` (n, classes) for the n training samples, in their order: logits or log-probabilities, without gradients.

    The teacher is asked once, in evaluation mode: nothing that happens to a network afterwards changes what it taught.
    """

    outputs: Tensor
    alpha: float
    temperature: float

    def loss(self, task: Callable[[Tensor, Tensor], Tensor], output: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """The loss of `output` for the samples at `rows`, whose labels are `y`."""
        soft = softened_divergence(output, self.outputs[rows], self.temperature)
        return (1 - self.alpha) * task(output, y) + self.alpha * self.temperature**2 * soft


def softened_divergence(output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the class distributions softened by `temperature`, in nats, mean over samples.

    output, teacher   (n, classes, ...): logits, or log-probabilities, which are logits too
    Raises ConfigError where the shapes differ or there is one class. Source: Hinton et al. 2015, eq. 1.

    >>> import torch
    >>> log3 = torch.tensor([[1.0986123, 0.0]])  # odds of 3 to 1 against evens: 0.75 log2(0.75 / 0.5) + 0.25 log2(0.25 / 0.5) = 0.189 bits
    >>> round(float(softened_divergence(torch.zeros(1, 2), log3, 1.0)) / 0.6931472, 3)
    0.189
    """
    if output.shape != teacher.shape or output.ndim < 2 or output.shape[1] < 2:
        shapes = f"{tuple(output.shape)} and, of the teacher, {tuple(teacher.shape)}"
        raise ConfigError(f"distillation: outputs of shapes {shapes}: expected (samples, classes) of both")
    mine, theirs = ((z / temperature).log_softmax(1) for z in (output, teacher))
    return F.kl_div(mine, theirs, reduction="none", log_target=True).sum(1).mean()
