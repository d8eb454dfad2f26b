"""compact: what goes, what stays and why, exactness by hand and against the masked network, refusals, files."""

import copy
import sys
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

import prunescope as ps
from prunescope import cli
from prunescope.pruning.compact import CompactError, shrinking
from prunescope.pruning.compact.norms import CompactNorm
from prunescope.pruning.normalisation import recalibrate
from prunescope.types import PruningError, StoreError
from zoo import Gated, Grouped, randomised

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(model: nn.Module, **gone) -> ps.Masks:
    """Masks without the rows that are named: a__weight=[0, 2] masks rows 0 and 2 of a.weight."""
    masks = {}
    for name, numbers in gone.items():
        tensor = model.get_parameter(name.replace("__", "."))
        masks[name.replace("__", ".")] = torch.ones_like(tensor, dtype=torch.bool).index_fill(0, torch.tensor(numbers), False)
    return ps.Masks(masks)


def error(model: nn.Module, masks, small: nn.Module, *inputs) -> float:
    """The largest difference of the masked and the compacted network, relative to the largest output."""
    masked = copy.deepcopy(model)
    ps.Masks(dict(masks)).apply(masked)
    with torch.no_grad():
        one, two = masked(*inputs), small(*inputs)
    return float((one - two).abs().max() / one.abs().max())


def named(*layers: nn.Module) -> nn.Sequential:
    """A random sequence of layers a, b, c, ... in double precision."""
    torch.manual_seed(0)
    return randomised(nn.Sequential(OrderedDict(zip("abcdefgh", layers, strict=False)))).double()


def test_a_constant_unit_goes_into_the_next_bias_by_hand():
    net = named(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1))
    small, report = ps.compact(net, rows(net, a__weight=[0]), torch.randn(3, 2).double())
    constant = torch.sigmoid(net.a.bias[0])
    assert torch.allclose(small.c.bias, net.c.bias + net.c.weight[0, 0] * constant, rtol=0, atol=1e-15)
    assert torch.equal(small.a.weight, net.a.weight[1:])
    assert (small.a.out_features, small.c.in_features) == (1, 1)
    assert (report.before, report.after, report.removed, report.removable, report.how) == (9, 5, 4, 4, "own classes")
    assert "a.weight" in str(report)
    assert report.to_dict()["rows"][0]["removed"] == 1


def test_single_zeros_leave_units_dead_to_a_fixed_point():
    """b's unit 1 is heard by nobody; then a's unit 2, which feeds it alone, is not heard either."""
    net = named(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in net.named_parameters() if n.endswith("weight")}
    masks["e.weight"][:, 1] = False
    masks["c.weight"][[0, 2], 2] = False
    small, report = ps.compact(net, masks, torch.randn(2, 3).double())
    assert tuple(small.c.weight.shape) == (2, 3)
    assert error(net, masks, small, torch.randn(5, 3).double()) < 1e-12
    assert report.removed == report.removable


def test_a_unit_that_is_only_seldom_active_is_not_constant():
    net = named(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net.a.bias[0] = -100.0  # zero on every example, and not for every input
    _, report = ps.compact(net, None, torch.randn(4, 2).double())
    assert report.removed == 0


def test_behind_a_border_of_zeros_one_constant_channel_stands_for_all():
    net = named(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Softplus(), nn.Conv2d(6, 2, 3, padding=1))
    masks = rows(net, a__weight=[0, 2, 3, 5], a__bias=[0, 2, 3, 5])
    small, report = ps.compact(net, masks, torch.randn(2, 1, 9, 9).double())
    assert small.a.out_channels == 3
    assert report.rows[0].dead == 4
    assert "one constant channel" in report.rows[0].reason
    for size in (6, 9, 20):
        assert error(net, masks, small, torch.randn(1, 1, size, size).double()) < 1e-12
    inner, _ = ps.compact(
        named(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Softplus(), nn.Conv2d(6, 2, 3)), masks, torch.randn(2, 1, 9, 9).double()
    )
    assert inner.a.out_channels == 2, "without a border the bias takes them"


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6)])
def test_a_norm_goes_on_counting_what_was_removed(norm):
    net = named(nn.Linear(3, 6), norm, nn.Tanh(), nn.Linear(6, 2))
    masks = dict(rows(net, a__weight=[1, 4])) | {"d.weight": torch.ones(2, 6, dtype=torch.bool).index_fill(1, torch.tensor([1, 4]), False)}
    small, report = ps.compact(net, masks, torch.randn(2, 3).double())
    assert isinstance(small.b, CompactNorm)
    assert tuple(small.a.weight.shape) == (4, 3)
    assert error(net, masks, small, torch.randn(5, 3).double()) < 1e-12
    assert report.removed == report.removable > 0


class Placed(nn.Module):
    """Adds other numbers at each of five positions (or at as many as there are) before a norm over channels."""

    def __init__(self, norm: nn.Module, positions: int) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 6), norm, nn.Linear(6, 2)
        self.where, self.positions = nn.Parameter(torch.randn(64, 1)), positions

    def forward(self, x):
        count = self.positions or x.shape[1]
        return self.c(torch.tanh(self.b(self.a(x) + self.where[:count])))


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6)])
@pytest.mark.parametrize("positions", [5, 0])
def test_what_differs_between_positions_goes_where_their_number_is_fixed(tmp_path, norm, positions):
    torch.manual_seed(0)
    net = randomised(Placed(norm, positions)).double()
    gone = torch.tensor([1, 4])
    masks = dict(rows(net, a__weight=gone.tolist(), a__bias=gone.tolist(), b__weight=gone.tolist()))
    masks["c.weight"] = torch.ones(2, 6, dtype=torch.bool).index_fill(1, gone, False)
    small, report = ps.compact(net, masks, torch.randn(2, 5, 3).double())
    assert tuple(small.a.weight.shape) == ((4, 3) if positions else (6, 3)), "other sizes have other positions"
    assert report.removed == (report.removable if positions else 0)
    assert error(net, masks, small, torch.randn(7, 5, 3).double()) < 1e-12
    ps.save_compact(small, tmp_path / "small.safetensors")
    again = ps.load_compact(net, tmp_path / "small.safetensors")
    assert error(net, masks, again, torch.randn(1, 5, 3).double()) < 1e-12


def test_group_norm_with_unequal_groups():
    net = named(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), nn.Conv2d(6, 2, 1))
    keep = torch.ones(2, 6, 1, 1, dtype=torch.bool).index_fill(1, torch.tensor([0, 1, 4]), False)
    masks = dict(rows(net, a__weight=[0, 1, 4])) | {"d.weight": keep}
    small, _ = ps.compact(net, masks, torch.randn(2, 2, 8, 8).double())
    assert small.a.out_channels == 3
    assert error(net, masks, small, torch.randn(2, 2, 11, 8).double()) < 1e-12


def test_a_residual_channel_stays_while_one_of_its_writers_lives():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = F.relu(self.a(x))
            return self.out(x + self.b(x))

    net = randomised(Net()).double()
    half = rows(net, b__weight=[1], b__bias=[1])
    assert ps.compact(net, half, torch.randn(2, 3).double())[1].removed == 0
    both = rows(net, a__weight=[1], b__weight=[1], b__bias=[1])
    small, report = ps.compact(net, both, torch.randn(2, 3).double())
    assert small.out.in_features == 3
    assert report.removed == report.removable
    assert error(net, both, small, torch.randn(4, 3).double()) < 1e-12


def test_recurrent_units_go_when_silent_and_stay_while_their_constant_moves():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    net, x = randomised(Net()).double(), torch.randn(2, 5, 3).double()
    unit = [1, 5, 9, 13]
    moving = rows(net, rnn__weight_ih_l0=unit, rnn__weight_hh_l0=unit)
    assert ps.compact(net, moving, x)[1].removed == 0
    silent = rows(net, rnn__weight_ih_l0=unit, rnn__weight_hh_l0=unit, rnn__bias_ih_l0=unit, rnn__bias_hh_l0=unit)
    small, _ = ps.compact(net, silent, x)
    assert small.rnn.hidden_size == 3
    assert error(net, silent, small, torch.randn(7, 9, 3).double()) < 1e-12


class Attending(nn.Module):
    """Grouped-query attention and a gated MLP in a stream, in the user's own classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.mlp, self.norm = nn.Linear(5, 16), Grouped(), Gated(), nn.LayerNorm(16)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.out(x + self.mlp(x))


def test_heads_and_gated_units_go_in_the_users_own_classes():
    torch.manual_seed(0)
    net, x = randomised(Attending()).double(), torch.randn(2, 6, 5).double()
    masks = ps.prune(copy.deepcopy(net), sparsity=0.5, granularity="channel", criterion="random", example_inputs=x)
    small, report = ps.compact(net, masks, x)
    assert report.how == "own classes"
    assert report.removed >= 0.95 * report.removable
    assert type(small) is Attending
    assert small.attention.k.out_features == 4, "one of two heads of keys and values"
    for batch, length in ((1, 6), (7, 6), (3, 9)):
        assert error(net, masks, small, torch.randn(batch, length, 5).double()) < 1e-10


class Torchs(nn.Module):
    """torch's own attention, whose module has no room for fewer heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.out = nn.Linear(5, 16), nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.out(x + self.attention(x, x, x, need_weights=False)[0])


def torchs():
    torch.manual_seed(0)
    net, x = randomised(Torchs()), torch.randn(2, 6, 5)
    return net, ps.prune(copy.deepcopy(net), sparsity=0.5, granularity="channel", criterion="random", example_inputs=x), x


def test_what_the_classes_cannot_hold_becomes_a_graph_of_any_batch(tmp_path):
    net, masks, x = torchs()
    small, report = ps.compact(net, masks, x)
    assert report.how == "graph module"
    assert "own classes" in report.note
    assert report.removed == report.removable
    assert dict(small.named_parameters()).keys() <= dict(net.named_parameters()).keys()
    for batch, length in ((1, 6), (7, 6), (3, 9)):
        assert error(net, masks, small, torch.randn(batch, length, 5)) < 1e-5
    again = ps.load_compact(None, ps.save_compact(small, tmp_path / "small.pt2", x), trust=True)
    y = torch.randn(7, 6, 5)
    assert torch.allclose(again(y), small(y), rtol=0, atol=1e-6)
    with pytest.raises(StoreError, match="ends in"):
        ps.save_compact(small, tmp_path / "small.safetensors")


def test_compact_save_load_train_compact(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return randomised(
            nn.Sequential(nn.Linear(4, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 8, bias=False), nn.Sigmoid(), nn.Linear(8, 2))
        )

    net, x = fresh(), torch.randn(6, 4)
    masks = ps.prune(copy.deepcopy(net), sparsity=0.5, granularity="channel", example_inputs=x)
    small, first = ps.compact(net, masks, x)
    path = ps.save_compact(small, tmp_path / "small.safetensors")
    loaded = ps.load_compact(fresh(), path)
    assert torch.equal(loaded(x), small(x))
    assert loaded[3].in_features == 6
    optimizer = torch.optim.SGD(loaded.parameters(), 0.1)
    loaded(x).square().sum().backward()
    optimizer.step()
    masks = ps.prune(copy.deepcopy(loaded), sparsity=0.5, granularity="channel", example_inputs=x)
    again, second = ps.compact(loaded, masks, x)
    assert second.before == first.after
    assert again[3].out_features == 2
    with pytest.raises(StoreError, match="holds a Sequential"):
        ps.load_compact(nn.Linear(2, 2), path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(StoreError, match="not a compacted network"):
        ps.load_compact(fresh(), tmp_path / "other.safetensors")


def test_the_model_and_the_masks_stay_as_they_are():
    net, masks, x = torchs()
    state, kept = copy.deepcopy(net.state_dict()), {n: m.clone() for n, m in masks.items()}
    net.train()
    ps.compact(net, masks, x)
    assert net.training
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in state.items())
    assert all(torch.equal(m, masks[n]) for n, m in kept.items())


def test_a_wrong_network_is_not_returned(monkeypatch):
    """The check itself can fail: leave the constants out of the next bias."""
    net = named(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1))
    monkeypatch.setattr("prunescope.pruning.compact.plan._bias", lambda intake, weight, values: torch.zeros(weight.shape[0]).double())
    _small, report = ps.compact(net, rows(net, a__weight=[0]), torch.randn(3, 2).double())
    assert report.removed == 0, "it stays, and the network is right"
    assert "could not be removed" in report.rows[0].reason
    monkeypatch.setattr(shrinking, "own_classes", lambda work, plan: named(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1)).apply(_noise))
    monkeypatch.setattr(shrinking, "graph_modules", lambda traces, plan, flexible: iter(()))
    with pytest.raises(CompactError, match="cannot be made smaller: own classes: on example its outputs differ"):
        ps.compact(net, rows(net, a__weight=[0]), torch.randn(3, 2).double())


def _noise(module: nn.Module) -> None:
    for p in module.parameters(recurse=False):
        p.data += 1.0


def test_the_largest_number_of_double_precision_becomes_that_of_the_networks_own():
    """As masks of attention have it: the trace is one in double precision."""
    graph = torch.fx.Graph()
    least = torch.finfo(torch.float64).min
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.ops.aten.masked_fill.Scalar, (x, graph.call_function(torch.ops.aten.gt.Scalar, (x, 1)), least)))
    module = torch.fx.GraphModule(nn.Module(), graph)
    single = shrinking.returned(module, nn.Linear(1, 1), torch.float32)
    assert single(torch.tensor([2.0, 1.0])).tolist() == [torch.finfo(torch.float32).min, 1.0]


def test_refusals_name_the_reason():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else x

    with pytest.raises(PruningError, match="Branching cannot be traced"):
        ps.compact(Branching(), None, torch.zeros(2, 2))
    with pytest.raises(CompactError, match="needs example_inputs"):
        ps.compact(nn.Linear(2, 2))
    with pytest.raises(PruningError, match="shape"):
        ps.compact(nn.Linear(2, 2), {"weight": torch.ones(3, 2)}, torch.zeros(2, 2))


def test_approximate_drops_what_changes_over_positions_and_says_so():
    net = named(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Softplus(), nn.Conv2d(4, 2, 1))
    masks, x = rows(net, a__weight=[1, 2]), torch.randn(2, 1, 8, 8).double()
    exact, report = ps.compact(net, masks, x)
    assert report.removed == 0
    assert report.rows[0].dead == 2
    assert "differ between positions" in report.rows[0].reason
    rough, loose = ps.compact(net, masks, x, approximate=True)
    assert rough.a.out_channels == 2
    assert not loose.exact
    assert "APPROXIMATION" in str(loose)
    assert 1e-6 < error(net, masks, rough, x) < 0.5
    assert error(net, masks, exact, x) < 1e-12


def test_an_approximation_takes_the_statistics_of_its_norms_anew_and_comes_closer():
    torch.manual_seed(0)
    shifted = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    net = named(nn.Conv2d(1, 4, 3, padding=1), shifted, nn.Softplus(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    masks, x = rows(net, a__weight=[1, 2]), torch.randn(64, 1, 8, 8).double()
    whole = copy.deepcopy(net)
    masks.apply(whole)
    recalibrate(whole, x, 64)  # what the masked network would be with statistics of its own
    rough, _ = ps.compact(whole, masks, x[:4], approximate=True)
    near, report = ps.compact(whole, masks, x[:4], approximate=True, calibration=x)
    assert report.recalibrated == 1
    assert "statistics of 1 batch norms" in str(report)
    assert not torch.equal(near.e.running_mean, rough.e.running_mean)
    assert error(whole, masks, near, x) < error(whole, masks, rough, x)
    with pytest.raises(CompactError, match="belongs to approximate"):
        ps.compact(whole, masks, x[:4], calibration=x)


def network() -> nn.Module:
    """What the command line is given by "test_compact:network"."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def test_the_command_writes_a_file_that_loads(tmp_path, monkeypatch, capsys):
    torch.manual_seed(3)
    net = network()
    masks = rows(net, **{"0__weight": [0, 1], "0__bias": [0]})
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    masks.save(tmp_path / "m.safetensors")
    words = ["compact", f"{__name__}:network", "--weights", str(tmp_path / "w.safetensors"), "--masks", str(tmp_path / "m.safetensors")]
    monkeypatch.setattr(sys, "argv", ["prunescope", *words, "--input", "4", "--classes", "2", "--out", str(tmp_path / "small")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr().out
    assert not stopped.value.code
    assert "44 parameters -> 30" in printed
    small = ps.load_compact(network(), tmp_path / "small.safetensors")
    assert error(net, masks, small, torch.randn(3, 4)) < 1e-5
    monkeypatch.setattr(sys, "argv", ["prunescope", "compact", f"{__name__}:network"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "--input" in capsys.readouterr().err
