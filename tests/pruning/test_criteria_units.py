"""Criteria of units, of the weights alone and of synaptic flow: each against its formula by hand, and what they promise of the model."""

import copy
import itertools

import pytest
import torch
from calibrated import calibration, tiny_cnn
from torch import nn
from torch.nn import functional

import prunescope as ps
from prunescope.information import conditional_mutual_information, mutual_information
from prunescope.pruning import redundancy, signals
from prunescope.pruning.scoring import raw_scores
from prunescope.registry import criteria
from prunescope.types import ConfigError, EstimateError, PruningError


def scores(net, data, criterion, setting=None, **options):
    setting = setting or calibration(net, data)
    entry = criteria.get(criterion)
    available = signals.compute(entry.needs, setting, options)
    return {t.name: raw_scores(t, entry, available, options) for t in setting.targets}


def test_lamp_is_its_formula_written_as_sums_over_larger_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4))
    u = net[0].weight.detach().double().flatten() ** 2
    expected = torch.stack([v / u[u >= v].sum() for v in u]).view(4, 5)
    torch.testing.assert_close(scores(net, None, "lamp")["0.weight"], expected)


def test_lamp_with_global_allocation_never_empties_a_layer():
    """The largest weight of every layer scores 1, the most there is."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20))
    net[1].weight.data.mul_(1e-4)
    masks = ps.prune(net, sparsity=0.99, criterion="lamp", allocation="global", output=True)
    assert all(m.any() for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.99 * 1200)
    other = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20))
    other[1].weight.data.mul_(1e-4)
    with pytest.raises(PruningError, match=r"nothing would be left of 1\.weight"):
        ps.prune(other, sparsity=0.99, allocation="global", output=True)


def test_geometric_median_is_a_sum_of_distances_between_filters():
    net = tiny_cnn()[0]
    filters = net[0].weight.detach().flatten(1)
    expected = torch.stack([sum(((a - b) ** 2).sum().sqrt() for b in filters) for a in filters])
    torch.testing.assert_close(scores(net, None, "fpgm")["0.weight"], expected)


def test_norm_scale_takes_the_norm_after_the_layer_and_is_refused_without():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net[1].weight.data.copy_(torch.tensor([0.5, -0.1, 2.0, -3.0]))
    masks = ps.prune(net, sparsity=0.5, criterion="batchnorm-scale", granularity="filter")
    assert masks["0.bias"].tolist() == [False, False, True, True]
    plain = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(PruningError, match=r"no normalisation .* follows 0\.weight"):
        ps.prune(plain, sparsity=0.5, criterion="batchnorm-scale", granularity="neuron")


def test_movement_needs_the_weights_from_the_start():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    start = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        net[0].weight.add_(torch.randn(5, 6))
    moved = (net[0].weight - start["0.weight"]).abs().detach()
    masks = ps.prune(copy.deepcopy(net), sparsity=0.5, criterion="movement", initial=start)["0.weight"]
    assert moved[masks].min() >= moved[~masks].max()
    grown = net[0].weight.detach().abs() - start["0.weight"].abs()
    masks = ps.prune(copy.deepcopy(net), sparsity=0.5, criterion="magnitude-increase", initial=start)["0.weight"]
    assert grown[masks].min() >= grown[~masks].max()
    with pytest.raises(PruningError, match="pass it as initial="):
        ps.prune(net, sparsity=0.5, criterion="movement")
    with pytest.raises(PruningError, match=r"initial\['0\.weight'\]: expected a tensor of shape \(5, 6\), got nothing"):
        ps.prune(net, sparsity=0.5, criterion="movement", initial={})


def test_movement_direction_is_what_small_gradient_steps_add_up():
    """Sanh et al. sum -lr w dL/dw over the steps; with small steps that is (w^2 - w0^2) / 2."""
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Linear(4, 3)).double(), torch.randn(20, 4).double(), torch.randint(0, 3, (20,))
    start = copy.deepcopy(net.state_dict())
    total = torch.zeros(3, 4, dtype=torch.float64)
    for _ in range(2000):
        (grad,) = torch.autograd.grad(functional.cross_entropy(net(x), y), [net[0].weight])
        total -= 1e-3 * grad * net[0].weight.detach()
        net[0].weight.data -= 1e-3 * grad
    setting = calibration(net, None, extra={"initial": start})
    found = scores(net, None, "movement-direction", setting)["0.weight"]
    torch.testing.assert_close(found, total, rtol=2e-3, atol=1e-4)


def relu_net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize("chunks", [1, 3])
def test_unit_statistics_of_what_the_activation_function_gives(chunks):
    net, x = relu_net(), torch.randn(50, 5)
    with torch.no_grad():
        t = torch.relu(net[0](x)).double()
    data = list(x.split(-(-50 // chunks)))
    setting = calibration(net, data)
    only = setting_of(setting, "0.weight")
    found = {c: scores(net, data, c, only)["0.weight"] for c in ("apoz", "activation-mean", "activation-variance")}
    torch.testing.assert_close(found["apoz"], (t != 0).double().mean(0))
    torch.testing.assert_close(found["activation-mean"], t.mean(0))
    torch.testing.assert_close(found["activation-variance"], t.var(0, correction=0))


def setting_of(setting, name):
    from dataclasses import replace

    return replace(setting, targets=[t for t in setting.targets if t.name == name])


def test_activations_called_as_functions_behind_a_norm_are_found_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(functional.relu(self.norm(self.conv(x)), inplace=True).mean((2, 3)))

    torch.manual_seed(0)
    net, x = Net(), torch.randn(6, 2, 5, 5)
    net.norm.running_mean.normal_()
    found = signals.compute(["unit_statistics", "unit_samples"], calibration(net, x))
    with torch.no_grad():
        t = torch.relu(net.eval().norm(net.conv(x))).double()
    statistics = found["unit_statistics"]["conv.weight"]
    assert statistics.activated
    torch.testing.assert_close(statistics.zeros, (t == 0).double().mean((0, 2, 3)))
    torch.testing.assert_close(found["unit_samples"]["conv.weight"].values, t.mean((2, 3)))
    assert not found["unit_statistics"]["head.weight"].activated
    with pytest.raises(PruningError, match="'apoz': no activation function follows"):
        ps.prune(net, sparsity=0.5, criterion="apoz", granularity="neuron", data=x, output=True)


def test_units_of_a_transformers_hidden_layer():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(4, 3, 8)
    setting = setting_of(calibration(net, x), "linear1.weight")
    statistics = signals.compute(["unit_statistics"], setting)["unit_statistics"]["linear1.weight"]
    assert statistics.activated
    assert 0.2 < float(statistics.zeros.mean()) < 0.8
    with pytest.raises(PruningError, match=r"'unit_statistics': self_attn\.in_proj_weight .* is no layer with units of its own"):
        signals.compute(["unit_statistics"], calibration(net, x))
    samples = signals.compute(["unit_samples"], setting_of(calibration(net, x), "self_attn.out_proj.weight"))["unit_samples"]
    given = net.self_attn(x, x, x)[0].mean(1).double()
    torch.testing.assert_close(samples["self_attn.out_proj.weight"].values, given.detach())


def labelled(n=400, seed=0):
    """Units of a layer that passes its inputs on: a label's copy with noise, another like it, an independent sign, a constant."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=g)
    sign = torch.randint(0, 2, (n,), generator=g)
    wide = y + 0.3 * torch.randn(n, generator=g)
    columns = [wide, wide + 0.01 * torch.randn(n, generator=g), y + 2.0 * sign + 0.05 * torch.randn(n, generator=g), torch.ones(n)]
    x = torch.stack(columns, 1)
    net = nn.Sequential(nn.Linear(4, 4, bias=False))
    net[0].weight.data.copy_(torch.eye(4))
    return net, x, y


@pytest.mark.parametrize(("estimator", "settings"), [("gao-mixed", None), ("binning", {"bins": 6, "range": "quantile"})])
def test_information_about_the_label_is_the_estimators(estimator, settings):
    net, x, y = labelled()
    found = scores(net, (x, y), "information-label", estimator=estimator, settings=settings)["0.weight"]
    for j in range(4):
        expected = mutual_information(x[:, j].double(), y, estimator, **(settings or {})).value
        assert found[j] == pytest.approx(expected, abs=1e-12)
    assert found[3] == 0


def test_conditional_information_counts_a_copy_for_nothing():
    net, x, y = labelled()
    alone = scores(net, (x, y), "information-label", estimator="binning", settings={"bins": 4, "range": "quantile"})["0.weight"]
    beyond = scores(net, (x, y), "information-conditional")["0.weight"]
    knn = scores(net, (x, y), "information-conditional", estimator="gao-mixed")["0.weight"]
    assert alone[0] > 0.3
    assert alone[1] > 0.3
    for found in (beyond, knn):
        assert min(found[0], found[1]) < 0.1 < max(found[0], found[1], found[2])


def test_conditional_information_from_counts_is_the_estimators():
    g = torch.Generator().manual_seed(1)
    values = torch.randn(5, 300, 1, generator=g)
    values[2] = values[1] + 0.3 * values[2]
    y = (values[0, :, 0] > 0).long() + (values[1, :, 0] > 0.5).long()
    alone, given = redundancy.conditional_label_information(values, y, 4)
    codes = []
    for v in values[..., 0]:
        edges = v.sort().values[torch.tensor([75, 150, 225])]
        codes.append(torch.bucketize(v, edges, right=True))
    for j, s in itertools.product(range(5), repeat=2):
        assert alone[j] == pytest.approx(mutual_information(codes[j], y, "miller-madow").value, abs=1e-5)
        if j != s:
            expected = conditional_mutual_information(codes[j], y, codes[s], "miller-madow").value
            assert given[j, s] == pytest.approx(expected, abs=1e-5)


def test_greedy_order_never_rises():
    g = torch.Generator().manual_seed(2)
    for _ in range(10):
        given, alone = torch.rand(8, 8, generator=g), torch.rand(8, generator=g)
        asked = []
        found = redundancy.spread_over_rest(alone, lambda s, given=given, asked=asked: asked.append(s) or given[:, s])
        order = [*asked, *(set(range(8)) - set(asked))]
        values = [float(found[s]) for s in order]
        assert all(a >= b for a, b in itertools.pairwise(values))
        assert sorted(values, reverse=True) == values


def test_entropy_of_a_unit_at_its_layers_resolution():
    net, x, y = labelled()
    found = scores(net, x, "information-input", bins=16)["0.weight"]
    width = (x.max() - x.min()) / 16
    for j in range(4):
        cells = ((x[:, j].double() - x.min()) / width).floor().clamp(0, 15)
        p = cells.unique(return_counts=True)[1] / len(x)
        assert found[j] == pytest.approx(float(-(p * p.log2()).sum()), abs=0.02)
    with pytest.raises(PruningError, match="needs labels"):
        scores(net, x, "information-label")
    with pytest.raises(ConfigError, match="unknown estimator"):
        scores(net, (x, y), "information-label", estimator="gao")
    with pytest.raises((EstimateError, PruningError), match="label"):
        scores(net, (x, y[:, None].expand(-1, 2)), "information-label")


def deep_narrow(width=12, depth=20, seed=0):
    torch.manual_seed(seed)
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width, bias=False), nn.ReLU())]
    net = nn.Sequential(nn.Linear(16, width, bias=False), nn.ReLU(), *layers, nn.Linear(width, 4, bias=False))
    for m in net:
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight)
    return net


def test_synaptic_flow_is_the_gradient_of_the_product_of_absolute_weights():
    net = deep_narrow(depth=3)
    weights = [m.weight.detach().double().abs().requires_grad_() for m in net if isinstance(m, nn.Linear)]
    signal = torch.ones(16, dtype=torch.float64)
    for w in weights:
        signal = w @ signal
    expected = torch.autograd.grad(signal.sum(), weights)
    setting = calibration(net, None, extra={"example_inputs": torch.randn(2, 16)})
    found = list(scores(net, None, "synflow", setting).values())
    for f, w, g in zip(found, weights, expected, strict=True):
        torch.testing.assert_close(f, w.detach() * g)
        assert float(f.sum()) == pytest.approx(float(signal.detach().sum())), "flow is conserved from layer to layer"


def test_synflow_runs_in_rounds_and_undoes_them_when_refused():
    x = torch.randn(2, 16)
    rounds = {}
    for n in (1, 100):
        net = deep_narrow()
        rounds[n] = ps.prune(
            net, sparsity=0.9, criterion="synflow", allocation="global", example_inputs=x, options={"rounds": n}, output=True
        )
        assert sum(int((~m).sum()) for m in rounds[n].values()) == round(0.9 * (16 * 12 + 20 * 144 + 48))
    assert any(not torch.equal(rounds[1][n], rounds[100][n]) for n in rounds[1])
    net = deep_narrow()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(PruningError, match="nothing would be left"):
        ps.prune(net, sparsity=1.0, criterion="synflow", example_inputs=x, options={"rounds": 4})
    assert all(torch.equal(before[n], p) for n, p in net.state_dict().items())
    with pytest.raises(PruningError, match="needs the shape of an input"):
        ps.prune(net, sparsity=0.5, criterion="synflow")
    with pytest.raises(ConfigError, match="rounds = 0"):
        ps.prune(net, sparsity=0.5, criterion="synflow", example_inputs=x, options={"rounds": 0})


def pruned_at_start(criterion, sparsity, seed):
    """(weights left in the layer that has fewest, sum of the outputs of the absolute weights for ones) after global pruning."""
    net = deep_narrow(seed=seed)
    g = torch.Generator().manual_seed(seed)
    data = (torch.randn(100, 16, generator=g), torch.randint(0, 4, (100,), generator=g))
    masks = ps.prune(net, sparsity=sparsity, criterion=criterion, allocation="global", data=data, output=True, allow_empty=True)
    flow = torch.ones(16)
    for name in masks:
        flow = net.get_parameter(name).detach().abs() @ flow
    return min(int(m.sum()) for m in masks.values()), float(flow.sum())


@pytest.mark.parametrize("seed", range(3))
def test_synflow_keeps_every_layer_alive_where_other_global_criteria_empty_one(seed):
    """22 layers of width 12, 98 % removed: about three weights a layer are left."""
    left = {c: pruned_at_start(c, 0.98, seed) for c in ("magnitude", "snip", "grasp", "synflow")}
    assert left["synflow"][0] >= 1, left
    assert left["synflow"][1] > 0, "a path from input to output is left"
    for other in ("magnitude", "snip", "grasp"):
        assert left[other] == (0, 0.0), left


@pytest.mark.parametrize(
    "criterion", ["snip", "grasp", "obd", "obs-diagonal", "obs-block", "wanda", "sparsegpt", "synflow", "apoz", "fpgm"]
)
def test_scoring_leaves_the_model_as_it_found_it(criterion):
    class Noisy(nn.Module):
        """Draws in evaluation mode, counts its calls in a buffer, and replaces another one."""

        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(3))

        def forward(self, x):
            self.calls += 1
            self.last = torch.rand(3)
            return x + 1e-3 * torch.randn_like(x)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Noisy(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.randn(8, 1, 6, 6), torch.randint(0, 3, (8,))
    net(x).sum().backward()
    net[1].eval()
    net[6].weight.requires_grad_(False)
    before, grads = copy.deepcopy(net.state_dict()), [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    modes, frozen = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    stream, last, fast = torch.get_rng_state(), net[3].last, torch.backends.mha.get_fastpath_enabled()
    entry = criteria.get(criterion)
    setting = calibration(net, (x, y))
    setting = setting_of(setting, "0.weight") if criterion == "apoz" else setting
    first = scores(net, None, criterion, setting)
    again = scores(net, None, criterion, setting_of_new_stream(setting))
    assert all(torch.equal(first[n], again[n]) for n in first), f"{entry.name} is seeded"
    assert all(torch.equal(before[n], v) for n, v in net.state_dict().items())
    assert net[3].last is last
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == frozen
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()] == hooks
    for p, g in zip(net.parameters(), grads, strict=True):
        assert (p.grad is None) == (g is None)
        assert g is None or torch.equal(p.grad, g)


def setting_of_new_stream(setting):
    from dataclasses import replace

    return replace(setting, generator=torch.Generator().manual_seed(0))


def test_forms_of_calibration_data():
    torch.manual_seed(0)
    net, x, y = relu_net(), torch.randn(12, 5), torch.randint(0, 3, (12,))
    dataset = torch.utils.data.TensorDataset(x, y)
    stream = torch.get_rng_state()
    forms = [
        (x, y), ps.Split(x, y), [(x[:5], y[:5]), (x[5:], y[5:])], ((a, b) for a, b in [(x, y)]),
        torch.utils.data.DataLoader(dataset, batch_size=5, shuffle=True),
    ]  # fmt: skip
    found = [ps.prune(copy.deepcopy(net), sparsity=0.5, criterion="snip", data=form)["0.weight"] for form in forms]
    assert all(torch.equal(found[0], f) for f in found)
    assert torch.equal(torch.get_rng_state(), stream)
    for wrong, words in [(3, "data is a int"), ([3], "batch 0 is a int"), ([(x, y, y)], "batch 0 is a tuple"), (x, "no labels")]:
        with pytest.raises(PruningError, match=words):
            ps.prune(net, sparsity=0.5, criterion="snip", data=wrong)
    with pytest.raises(PruningError, match="'gradient' needs calibration data and none came"):
        ps.prune(net, sparsity=0.5, criterion="snip")
    with pytest.raises(PruningError, match=r"returned a tuple.*pass loss_fn"):
        ps.prune(nn.LSTM(5, 4), sparsity=0.5, criterion="snip", data=(x[:, None], y))


def test_options_of_criteria_and_their_signals_are_checked():
    net, x, y = relu_net(), torch.randn(12, 5), torch.randint(0, 3, (12,))
    for criterion, options, words in [
        ("snip", {"probes": 3}, "unknown pruning option 'probes'"),
        ("obd", {"probes": "many"}, "'probes' of signal 'hessian_diagonal'"),
        ("wanda", {"compare": "column"}, "'compare' of criterion 'wanda'"),
        ("obs-block", {"blok": 3}, "did you mean 'block'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            ps.prune(net, sparsity=0.5, criterion=criterion, data=(x, y), options=options)
    with pytest.raises(PruningError, match="block = 0"):
        ps.prune(net, sparsity=0.5, criterion="obs-block", data=(x, y), options={"block": 0})
    with pytest.raises(PruningError, match="probes = 0"):
        ps.prune(net, sparsity=0.5, criterion="obd", data=(x, y), options={"probes": 0})
