"""Distillation: the loss in float64, and a training that listens to its teacher."""

import math

import pytest
import torch
from torch import nn

from prunescope.config import TrainingConfig
from prunescope.training import train
from prunescope.training.distillation import Distillation, softened_divergence
from prunescope.training.replicas import train_stack
from prunescope.types import ConfigError, Split


def task(output, y):
    return nn.functional.cross_entropy(output, y)


def test_the_loss_is_hintons_to_the_last_digits():
    z, v = [[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [[2.0, 0.0, -1.0], [1.0, 1.0, 4.0]]
    y, alpha, t = [0, 2], 0.3, 2.5

    def softened(row, temperature):
        e = [math.exp(x / temperature) for x in row]
        return [x / sum(e) for x in e]

    wanted = 0.0
    for own, other, label in zip(z, v, y, strict=True):
        p, q = softened(other, t), softened(own, t)
        hard = -math.log(softened(own, 1.0)[label])
        wanted += ((1 - alpha) * hard + alpha * t**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))) / 2
    outputs, teacher = torch.tensor(z, dtype=torch.float64, requires_grad=True), torch.tensor(v, dtype=torch.float64)
    shuffled = Distillation(teacher.flip(0), alpha, t)
    loss = shuffled.loss(task, outputs, torch.tensor(y), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(wanted, rel=1e-14)
    (slope,) = torch.autograd.grad(softened_divergence(outputs, teacher, t), outputs)
    hand = [[(b - a) / t / 2 for a, b in zip(softened(x, t), softened(o, t), strict=True)] for x, o in zip(v, z, strict=True)]
    assert torch.allclose(slope, torch.tensor(hand, dtype=torch.float64), rtol=1e-12)
    shifted = softened_divergence(outputs.log_softmax(1), teacher + 7, t)
    assert shifted.item() == pytest.approx(softened_divergence(outputs, teacher, t).item(), rel=1e-13), "log-probabilities are logits"


def test_outputs_that_are_no_distributions_are_refused():
    with pytest.raises(ConfigError, match="expected \\(samples, classes\\)"):
        softened_divergence(torch.zeros(4, 1), torch.zeros(4, 1), 1.0)
    x = torch.zeros(6, 2)
    teaching = Distillation(torch.zeros(5, 3), 0.5, 1.0)
    with pytest.raises(ConfigError, match="asked about 5 samples, and 6"):
        train(nn.Linear(2, 3), Split(x, torch.zeros(6).long()), TrainingConfig(epochs=1), seed=0, teaching=teaching)


def test_a_student_with_all_attention_on_its_teacher_becomes_it():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    teacher = torch.randn(64, 4, generator=generator, dtype=torch.float64)[:4]
    logits = x @ teacher
    data = Split(x, torch.zeros(64).long())  # labels that say nothing of the teacher
    settings = TrainingConfig(epochs=150, batch_size="full", lr=2.0)
    ways = []
    for stack in ("off", "on"):
        nets = [nn.Linear(4, 4, bias=False).double() for _ in range(2)]
        for net in nets:
            nn.init.zeros_(net.weight)
        train_stack(nets, data, settings, seeds=[0, 1], teachings=[Distillation(logits, 1.0, 2.0)] * 2, stack=stack)
        ways.append(nets)
    first = ways[0][0]
    assert torch.allclose(first(x).softmax(1), logits.softmax(1), atol=0.02)
    assert torch.equal(first.weight, ways[1][0].weight), "taught networks go one by one whatever is asked for"
