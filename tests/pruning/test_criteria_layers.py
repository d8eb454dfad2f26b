"""Input signals against layers' own outputs, Wanda and SparseGPT against the papers' equations written out, and what their updates gain."""

import copy
import math

import pytest
import torch
from calibrated import calibration
from torch import nn

import prunescope as ps
from prunescope.pruning import signals, solvers
from prunescope.pruning.selection import shares, smallest_within
from prunescope.types import PruningError

CONVOLUTIONS = {
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (3, 4, 7, 6)),
    "dilated, uneven": (nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)), (3, 4, 7, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding="same"), (3, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (3, 4, 5, 5)),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (3, 4, 5, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2), (3, 4, 9)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=2), (2, 2, 4, 5, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (3, 4, 4, 5)),
    "transposed, dilated": (nn.ConvTranspose1d(4, 6, 3, padding=3, dilation=2), (3, 4, 8)),
    "linear": (nn.Linear(5, 6), (7, 5)),
    "linear on a sequence": (nn.Linear(5, 6), (3, 4, 5)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_moments_give_each_units_squared_output(kind):
    """sum over samples and positions of (output - bias)^2 = diagonal of W (sum x x^T) W^T, whatever the layer's geometry."""
    layer, shape = CONVOLUTIONS[kind]
    net = nn.Sequential(copy.deepcopy(layer).double())
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = signals.compute(["input_moments", "input_norms"], calibration(net, [x[:1], x[1:]]))
    moments, norms = found["input_moments"]["0.weight"], found["input_norms"]["0.weight"]
    weight = net[0].weight.detach()
    matrices = moments.matrices(weight)
    along = -1 if isinstance(layer, nn.Linear) else 1
    out = (net(x) - net[0].bias.view([-1 if d == along % x.ndim else 1 for d in range(x.ndim)])).movedim(along, 0).flatten(1)
    torch.testing.assert_close(out.square().sum(1), (matrices @ moments.sums * matrices).sum(-1).flatten())
    assert torch.equal(moments.weight(matrices), weight)
    diagonal = moments.sums.diagonal(dim1=-2, dim2=-1)
    expected = moments.matrices(weight.abs() * norms) / matrices.abs()
    torch.testing.assert_close(expected, diagonal.sqrt()[:, None].expand_as(expected))


def test_gpt2_style_layers_store_their_weight_transposed():
    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x @ self.weight + self.bias

    net, x = nn.Sequential(Conv1D(), nn.Tanh(), nn.Linear(3, 2)), torch.randn(9, 5)
    weight = net[0].weight.detach().clone()
    masks = ps.prune(net, sparsity=0.4, criterion="wanda", data=x)
    scores = weight.abs() * x.norm(dim=0)[:, None]
    assert torch.equal((~masks["0.weight"]).sum(0), torch.tensor([2, 2, 2])), "each output unit, a column here, loses its share"
    for unit in range(3):
        kept = masks["0.weight"][:, unit]
        assert scores[kept, unit].min() > scores[~kept, unit].max()


def recurrent_states(module, x):
    """What enters weight_ih and weight_hh of every layer and direction, cell by cell."""
    cells = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}[type(module)]
    found = {}
    for layer in range(module.num_layers):
        outs = []
        for side in ("", "_reverse") if module.bidirectional else ("",):
            cell = cells(x.shape[-1], module.hidden_size).double()
            for name, p in cell.named_parameters():
                p.data.copy_(getattr(module, f"{name}_l{layer}{side}"))
            state, steps, before = None, [], []
            for t in range(len(x))[:: -1 if side else 1]:
                hidden = torch.zeros(x.shape[1], module.hidden_size).double() if state is None else state
                before.append(hidden[0] if isinstance(hidden, tuple) else hidden)
                state = cell(x[t], state)
                steps.append(state[0] if isinstance(state, tuple) else state)
            found[f"weight_ih_l{layer}{side}"] = x.flatten(0, 1)
            found[f"weight_hh_l{layer}{side}"] = torch.stack(before).flatten(0, 1)
            outs.append(torch.stack(steps[:: -1 if side else 1]))
        x = torch.cat(outs, -1)
    return found


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_weights_see_inputs_and_previous_states(kind, bidirectional):
    torch.manual_seed(0)
    net = kind(3, 4, num_layers=2, bidirectional=bidirectional, batch_first=True).double()
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    found = signals.compute(["input_moments"], calibration(net, x))["input_moments"]
    with torch.no_grad():
        expected = recurrent_states(net, x.transpose(0, 1))
    assert set(found) == set(expected)
    for name, rows in expected.items():
        torch.testing.assert_close(found[name].sums[0], rows.T @ rows)


@pytest.mark.parametrize("cross", [False, True])
def test_attention_weights_see_queries_keys_values_and_heads(cross):
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, *((x.flip(2), x[:, :2].flip(2)[:, [0, 1, 1]]) if cross else (x, x)))[0]

    net, x = Net().double(), torch.randn(3, 3, 4, dtype=torch.float64)
    found = signals.compute(["input_moments"], calibration(net, x))["input_moments"]
    packed = found["attention.in_proj_weight"]
    assert len(packed.sums) == (3 if cross else 1)
    torch.testing.assert_close(packed.sums[0], x.flatten(0, 1).T @ x.flatten(0, 1))
    if cross:
        torch.testing.assert_close(packed.sums[1], x.flip(2).flatten(0, 1).T @ x.flip(2).flatten(0, 1))
    out = (net(x) - net.attention.out_proj.bias).flatten(0, 1)
    w = net.attention.out_proj.weight
    torch.testing.assert_close(out.T @ out, w @ found["attention.out_proj.weight"].sums[0] @ w.T)


def test_weights_whose_inputs_are_not_seen_are_refused_by_name():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(x @ self.table)

    with pytest.raises(PruningError, match=r"'input_norms': table is a .*parameter of Own.*exclude it"):
        ps.prune(Own(), sparsity=0.5, criterion="wanda", data=torch.randn(3, 4))
    with pytest.raises(PruningError, match="weight_hr_l0"):
        ps.prune(nn.LSTM(3, 4, proj_size=2), sparsity=0.5, criterion="wanda", data=torch.randn(3, 2, 3))
    with pytest.raises(PruningError, match="needs calibration data and none came"):
        ps.prune(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), sparsity=0.5, criterion="wanda")


def correlated(samples=400, width=24, rank=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, rank, generator=g) @ torch.randn(rank, width, generator=g)
    return (mixed + 0.3 * torch.randn(samples, width, generator=g)) * torch.linspace(0.2, 3, width)


def layer(width=24, units=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, units))


def test_wanda_is_its_equation_row_by_row():
    net, x = layer(), correlated()
    weight = net[0].weight.detach().double()
    scores = weight.abs() * x.double().square().sum(0).sqrt()
    masks = ps.prune(net, sparsity=0.5, criterion="wanda", data=x, output=True)
    expected = torch.ones_like(scores, dtype=torch.bool).scatter(1, scores.argsort(1)[:, :12], False)
    assert torch.equal(masks["0.weight"], expected)
    again = layer()
    whole = ps.prune(again, sparsity=0.5, criterion="wanda", data=x, output=True, options={"compare": "layer"})["0.weight"]
    assert int((~whole).sum()) == 192
    assert scores[whole].min() > scores[~whole].max()


def sparsegpt_written_out(weight, x, sparsity, block, damping=0.01):
    """Algorithm 1 of Frantar & Alistarh 2023, one row and one column at a time, with the inverse of the Hessian recomputed at each step.

    The paper takes the inverses of all trailing Hessians from one Cholesky factor; here each is inverted by itself.
    """
    w, d = weight.clone(), weight.shape[1]
    hessian = x.T @ x
    hessian += damping * hessian.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    pivots = torch.stack([torch.linalg.inv(hessian[j:, j:])[0, 0] for j in range(d)])
    mask = torch.ones_like(w, dtype=torch.bool)
    for j in range(d):
        if j % block == 0:
            scores = w[:, j : j + block] ** 2 / pivots[j : j + block]
            gone = scores.flatten().argsort()[: round(sparsity * scores.numel())]
            part = torch.ones(scores.numel(), dtype=torch.bool)
            part[gone] = False
            mask[:, j : j + block] = part.view_as(scores)
        inverse = torch.linalg.inv(hessian[j:, j:])
        for row in range(len(w)):
            if not mask[row, j]:
                w[row, j:] -= w[row, j] / inverse[0, 0] * inverse[0]
                w[row, j] = 0.0
    return mask, w


@pytest.mark.parametrize("columns", [8, 24])
def test_sparsegpt_is_algorithm_1(columns):
    net, x = layer().double(), correlated().double()
    mask, expected = sparsegpt_written_out(net[0].weight.detach(), x, 0.5, columns)
    masks = ps.prune(net, sparsity=0.5, criterion="sparsegpt", data=x, output=True, options={"columns": columns})
    assert torch.equal(masks["0.weight"], mask)
    torch.testing.assert_close(net[0].weight.detach(), expected, rtol=1e-6, atol=1e-9)
    assert (net[0].weight[~mask] == 0).all()


def test_sparsegpt_keeps_n_of_every_m_columns():
    net, x = layer().double(), correlated().double()
    weight = net[0].weight.detach()
    moments = signals.compute(["input_moments"], calibration(net, x))["input_moments"]["0.weight"]
    strongest = torch.zeros(16, 6, 4, dtype=torch.bool).scatter(2, weight.view(16, 6, 4).abs().argsort(2)[..., 2:], True).view(16, 24)
    places = torch.arange(weight.numel()).view_as(weight)
    choice = solvers.Choice(strongest, None, True, places, (2, 4))
    mask, new = solvers.layerwise_surgeon(weight, choice, moments)
    assert (mask.view(16, 6, 4).sum(2) == 2).all()
    fixed_mask, fixed = solvers.layerwise_surgeon(weight, solvers.Choice(strongest), moments)
    assert torch.equal(fixed_mask, strongest)
    plain = torch.where(strongest, weight, 0.0)
    errors = [float(((w - weight) @ x.T).square().sum()) for w in (new, fixed, plain)]
    assert errors[0] < errors[1] < errors[2], errors


def test_sparsegpt_patterns_across_strided_columns():
    """Pieces may be numbered along another dimension than the columns, as patterns over the input channels of a convolution are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 5, 3)).double()
    x = torch.randn(6, 4, 6, 6, dtype=torch.float64)
    weight = net[0].weight.detach()
    moments = signals.compute(["input_moments"], calibration(net, x))["input_moments"]["0.weight"]
    places = torch.arange(weight.numel()).view(5, 3, 3, 4).permute(0, 3, 1, 2)
    mask, _ = solvers.layerwise_surgeon(weight, solvers.Choice(weight > -9, None, True, places, (1, 4)), moments)
    assert (mask.sum(1) == 1).all()


def relative_error(criterion, x, fresh, **options):
    """Squared output error over the outputs' variance on `fresh` of a layer pruned with calibration data `x`."""
    net = layer()
    before = net(fresh).detach()
    ps.prune(net, criterion=criterion, data=x, output=True, **options)
    return float((net(fresh).detach() - before).square().mean() / before.var())


def test_patterns_keep_the_order_of_output_errors():
    x, fresh = correlated(), correlated(seed=1)
    errors = [relative_error(c, x, x, granularity="2:4") for c in ("magnitude", "wanda", "sparsegpt")]
    assert errors[2] < errors[1] < errors[0], errors
    net = layer()
    masks = ps.prune(net, criterion="sparsegpt", data=fresh, output=True, granularity="2:4")
    assert (masks["0.weight"].view(16, 6, 4).sum(2) == 2).all()
    assert torch.equal(net[0].weight != 0, masks["0.weight"])


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_output_error_of_sparsegpt_is_below_wandas_is_below_magnitudes(sparsity):
    x = correlated()
    errors = {}
    for criterion in ("magnitude", "wanda", "sparsegpt"):
        masks = ps.prune(layer(), sparsity=sparsity, criterion=criterion, data=x, output=True)
        assert int((~masks["0.weight"]).sum()) == round(sparsity * 384), "counts stay exact"
        errors[criterion] = relative_error(criterion, x, x, sparsity=sparsity)
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"], errors


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_chunks_earlier_masks_and_exact_counts(criterion):
    x = correlated()
    whole, parts = layer(), layer()
    a = ps.prune(whole, sparsity=0.37, criterion=criterion, data=x, output=True)
    b = ps.prune(parts, sparsity=0.37, criterion=criterion, data=[x[:100], x[100:130], x[130:]], output=True)
    assert torch.equal(a["0.weight"], b["0.weight"])
    torch.testing.assert_close(whole[0].weight, parts[0].weight)
    more = ps.prune(whole, sparsity=0.71, criterion=criterion, data=x, output=True, masks=a)
    assert int((~more["0.weight"]).sum()) == round(0.71 * 384)
    assert not (more["0.weight"] & ~a["0.weight"]).any()


def test_features_that_never_came_go_first_and_move_nothing():
    net, x = layer(), correlated()
    x[:, 5] = 0
    before = net[0].weight.detach().clone()
    masks = ps.prune(net, sparsity=0.1, criterion="sparsegpt", data=x, output=True, options={"columns": 24})
    assert not masks["0.weight"][:, 5].any()
    assert net[0].weight.isfinite().all()
    assert not torch.equal(net[0].weight[:, :5], before[:, :5])


def test_pieces_of_several_weights_keep_the_selections_choice_and_gain_from_the_update():
    x = correlated()
    net, plain = layer(), layer()
    before = net(x).detach()
    masks = ps.prune(net, sparsity=0.5, criterion="sparsegpt", granularity="neuron", data=x, output=True)
    assert all(m.all() or not m.any() for m in masks["0.weight"]), "whole units"
    same = ps.prune(plain, sparsity=0.5, criterion="sparsegpt", granularity="neuron", data=x, output=True, options={"update": False})
    assert torch.equal(same["0.weight"], masks["0.weight"])
    assert torch.equal(net(x), plain(x)), "a unit's own weights have nothing left to make up with"
    assert not torch.equal(before, net(x))


def test_shares_sum_and_rows_lose_evenly():
    assert shares(7, [4, 4, 4]) == [2, 3, 2]
    assert shares(0, [3, 1]) == [0, 0]
    assert shares(4, [3, 1]) == [3, 1]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        sizes = torch.randint(0, 6, (5,), generator=generator).tolist()
        total = int(torch.randint(0, sum(sizes) + 1, (1,), generator=generator))
        found = shares(total, sizes)
        assert sum(found) == total
        assert all(0 <= f <= s for f, s in zip(found, sizes, strict=True))
        rows = torch.arange(5).repeat_interleave(torch.tensor(sizes))
        values = torch.rand(len(rows), generator=generator)
        gone = smallest_within(values, rows, total)
        assert [int(gone[rows == r].sum()) for r in range(5)] == found
        for r in range(5):
            kept = values[(rows == r) & ~gone]
            assert not len(kept) or not gone[rows == r].any() or kept.min() >= values[(rows == r) & gone].max()
    assert math.isclose(sum(shares(5, [1] * 10)), 5)
