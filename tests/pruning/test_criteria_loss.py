"""Criteria from derivatives of the loss, against Jacobians and Hessians of torch.autograd.functional and loops over samples, in float64."""

import copy

import pytest
import torch
from calibrated import NETS, calibration, evaluated, loss_of, split, tiny_mlp
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional

import prunescope as ps
from prunescope.pruning import signals
from prunescope.pruning.scoring import raw_scores
from prunescope.registry import criteria
from prunescope.types import PruningError


def scores(net, data, criterion, **options):
    setting = calibration(net, data)
    entry = criteria.get(criterion)
    available = signals.compute(entry.needs, setting, options)
    return {t.name: raw_scores(t, entry, available, options) for t in setting.targets}


def check(found, expected, rtol=1e-10):
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=rtol, atol=1e-12)


@pytest.fixture(params=NETS)
def case(request):
    net, x, y = NETS[request.param]()
    loss, w, places = loss_of(net, x, y)
    return net, (x, y), lambda: loss(w), loss, w, places


def derivative(case, make):
    net, _, _, loss, w, places = case
    return split(evaluated(net, lambda: make(loss, w)), places, net)


@pytest.mark.parametrize(
    ("criterion", "make"),
    [
        ("gradient", lambda f, w: jacobian(f, w).abs()),
        ("snip", lambda f, w: (w * jacobian(f, w)).abs()),
        ("taylor", lambda f, w: w * jacobian(f, w)),
        ("taylor-second", lambda f, w: w * jacobian(f, w) - w * (hessian(f, w) @ w) / 2),
        ("grasp", lambda f, w: w * (hessian(f, w) @ jacobian(f, w))),
        ("obd", lambda f, w: w**2 * hessian(f, w).diagonal() / 2),
    ],
)
def test_criterion_is_its_formula(case, criterion, make):
    check(scores(case[0], case[1], criterion), derivative(case, make))


def per_sample(net, x, y):
    """(samples, weights): the gradient of every single sample's loss."""
    rows = []
    for i in range(len(x)):
        loss, w, places = loss_of(net, x[i : i + 1], y[i : i + 1])
        rows.append(evaluated(net, lambda loss=loss, w=w: jacobian(loss, w)))
    return torch.stack(rows), w, places


def test_diagonal_surgeon_is_the_mean_squared_gradient_of_single_samples(case):
    net, (x, y), *_ = case
    g, w, places = per_sample(net, x, y)
    check(scores(net, (x, y), "obs-diagonal"), split(w**2 * g.square().mean(0) / 2, places, net))


@pytest.mark.parametrize("block", [5, 1000])
def test_block_surgeon_inverts_the_fisher_matrix_of_each_block(case, block):
    net, (x, y), *_ = case
    g, w, places = per_sample(net, x, y)
    expected = {}
    for name, where in places.items():
        part, values = g[:, where], w[where]
        level = 0.1 * part.square().mean(0).mean()
        inverse = torch.zeros_like(values)
        for start in range(0, len(values), block):
            b = part[:, start : start + block]
            fisher = b.T @ b / len(b) + level * torch.eye(b.shape[1], dtype=torch.float64)
            inverse[start : start + block] = torch.linalg.inv(fisher).diagonal()
        expected[name] = (values**2 / (2 * inverse)).view_as(net.get_parameter(name))
    check(scores(net, (x, y), "obs-block", block=block, damping=0.1), expected, rtol=1e-7)


def test_per_sample_gradients_one_by_one_are_those_of_vmap(case, monkeypatch):
    net, data, *_ = case
    together = signals.compute(["squared_gradient"], calibration(net, data))["squared_gradient"]
    monkeypatch.setattr(signals.gradients, "_together", lambda *_: (_ for _ in ()).throw(RuntimeError("no batching rule")))
    alone = signals.compute(["squared_gradient"], calibration(net, data))["squared_gradient"]
    check(alone, together)


def test_hutchinson_probes_come_close_to_the_diagonal_and_are_seeded():
    net, x, y = tiny_mlp()
    exact = signals.compute(["hessian_diagonal"], calibration(net, (x, y)))["hessian_diagonal"]
    many = signals.compute(["hessian_diagonal"], calibration(net, (x, y)), {"probes": 3000})["hessian_diagonal"]
    few, again = (signals.compute(["hessian_diagonal"], calibration(net, (x, y)), {"probes": 2})["hessian_diagonal"] for _ in range(2))
    for name, value in exact.items():
        loss, w, _ = loss_of(net, x, y)
        off = hessian(loss, w).square().sum(1).max()
        assert (many[name] - value).abs().max() < 5 * (off / 3000).sqrt()
        assert torch.equal(few[name], again[name])


@pytest.mark.parametrize(
    "signal", ["gradient", "squared_gradient", "block_fisher", "hessian_gradient", "hessian_weight", "hessian_diagonal"]
)
def test_several_chunks_give_what_one_chunk_gives(case, signal):
    net, (x, y), *_ = case
    whole = signals.compute([signal], calibration(net, (x, y)))[signal]
    parts = signals.compute([signal], calibration(net, [(x[:2], y[:2]), (x[2:3], y[2:3]), (x[3:], y[3:])]))[signal]
    check(parts, whole)


def test_piece_scores_are_sums_over_all_that_a_piece_covers():
    net, x, y = tiny_mlp()
    loss, w, places = loss_of(net, x, y)
    flow = split(w * jacobian(loss, w), places, net)["0.weight"].sum(1).square()
    masks = ps.prune(net, sparsity=0.34, criterion="taylor", granularity="neuron", data=(x, y))
    assert int((~masks["0.weight"].any(1)).nonzero()) == int(flow.argmin()), "squares of sums, not sums of squares"


def test_block_surgeon_moves_the_kept_weights_to_the_minimum_of_the_quadratic():
    net, x, y = tiny_mlp()
    g, _, places = per_sample(net, x, y)
    original = net[0].weight.detach().flatten().clone()
    masks = ps.prune(net, sparsity=0.5, criterion="obs-block", data=(x, y), options={"block": 12, "damping": 0.1}, layers=["0"])
    fisher = g[:, places["0.weight"]].T @ g[:, places["0.weight"]] / len(x)
    fisher += 0.1 * fisher.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    kept = masks["0.weight"].flatten()
    assert (net[0].weight.flatten()[~kept] == 0).all()
    change = net[0].weight.detach().flatten() - original
    assert (fisher @ change)[kept].abs().max() < 1e-9, "no kept weight's move would lower dw F dw"
    assert change[kept].abs().max() > 1e-3
    torch.testing.assert_close(change[~kept], -original[~kept])


def test_update_false_leaves_the_kept_weights_bitwise():
    net, x, y = tiny_mlp()
    before = copy.deepcopy(net)
    masks = ps.prune(net, sparsity=0.5, criterion="obs-block", data=(x, y), options={"update": False})
    for name, mask in masks.items():
        assert torch.equal(net.get_parameter(name)[mask], before.get_parameter(name)[mask])


def test_nan_gradients_and_losses_that_are_no_number_are_named():
    net, x, y = tiny_mlp()
    x[0, 0] = float("nan")
    with pytest.raises(PruningError, match=r"gradient: 12 of 12 values of 0\.weight are NaN or infinite"):
        ps.prune(net, sparsity=0.5, criterion="snip", data=(x, y))
    with pytest.raises(PruningError, match=r"shape \(7,\): expected one number"):
        ps.prune(net, sparsity=0.5, criterion="snip", data=(x, y), loss_fn=lambda o, t: functional.cross_entropy(o, t, reduction="none"))


class Attending(nn.Module):
    """A recurrent layer, attention, a bare parameter and a linear head."""

    def __init__(self):
        super().__init__()
        self.lstm, self.attention = nn.LSTM(3, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)
        self.mix, self.head = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 3)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head((self.attention(states, states, states, need_weights=False)[0] @ self.mix).mean(1))


@pytest.mark.parametrize("criterion", ["snip", "grasp", "taylor-second", "obd", "obs-diagonal", "obs-block"])
def test_recurrent_attention_and_bare_weights_have_their_formula_too(criterion):
    torch.manual_seed(1)
    net = Attending().double()
    x, y = torch.randn(4, 5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    found = scores(net, (x, y), criterion)
    assert {"lstm.weight_hh_l0", "attention.in_proj_weight", "attention.out_proj.weight", "mix"} <= set(found)
    assert all(value.isfinite().all() and value.abs().max() > 0 for value in found.values())
    if criterion == "snip":
        loss, w, places = loss_of(net, x, y)
        check(found, split((w * jacobian(loss, w)).abs(), places, net))


def test_a_model_that_takes_keywords_and_returns_its_loss():
    class Output(dict):
        loss = property(lambda self: self["loss"])
        logits = property(lambda self: self["logits"])

    class Hugging(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, values, labels=None):
            logits = self.head(torch.tanh(self.body(values)))
            return Output(logits=logits, loss=None if labels is None else functional.cross_entropy(logits, labels))

    torch.manual_seed(0)
    net, x, y = Hugging(), torch.randn(6, 4), torch.randint(0, 2, (6,))
    forms = [{"values": x, "labels": y}, [{"values": x[:4], "labels": y[:4]}, {"values": x[4:], "labels": y[4:]}], ({"values": x}, y)]
    for criterion in ("snip", "obs-diagonal", "wanda"):
        first, *others = (scores(net, form, criterion) for form in forms)
        for other in others:
            for name, value in first.items():
                torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-7)
