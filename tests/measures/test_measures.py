"""Measures against values worked out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunescope as ps
from prunescope.measures.capture import activations_of, capture, natural_range
from prunescope.measures.quality import evaluate, loss_function, predictions, probabilities
from prunescope.types import ConfigError, DataError, Split


class Fixed(nn.Module):
    """Returns its input: logits by hand."""

    def forward(self, x):
        return x


def test_accuracy_and_loss_by_hand_over_uneven_batches():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    data = Split(logits, torch.tensor([0, 1, 0]))
    found = evaluate(Fixed(), data)
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(1))]
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["loss"].value == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert found["accuracy"].stderr == pytest.approx(math.sqrt(2 / 9 / 3))
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=2)  # the last batch is smaller: means of means would be wrong
    assert ps.measure(Fixed(), loader, ["accuracy"])["accuracy"].value == pytest.approx(2 / 3)


def test_losses_agree_where_they_should():
    logits, y = torch.randn(20, 2), torch.randint(0, 2, (20,))
    ce = loss_function("cross-entropy")(logits, y)
    torch.testing.assert_close(loss_function("nll")(logits.log_softmax(-1), y), ce)
    torch.testing.assert_close(loss_function("binary-cross-entropy")(logits.softmax(-1)[:, 1:], y), ce)
    torch.testing.assert_close(probabilities(logits.log_softmax(-1), "nll"), probabilities(logits, "cross-entropy"))
    assert predictions(torch.tensor([[0.2], [0.7]])).tolist() == [0, 1]


def test_size_counts_shared_tensors_once_and_zeros_not_at_all():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[0].bias)
    nn.init.zeros_(net[1].bias)
    found = ps.measure(net, names=["size"])
    assert (found["parameters"].value, found["nonzero"].value, found["bytes"].value) == (24, 20, 96)


def test_flops_by_hand():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    data = (torch.randn(8, 1, 8, 8), torch.zeros(8, dtype=torch.long))
    assert ps.measure(net, data, ["flops"])["flops"].value == 2 * (4 * 9 * 36 + 144 * 10)


def test_latency_states_batch_and_threads_and_keeps_the_mode():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    found = ps.measure(net, (torch.randn(9, 4), torch.zeros(9).long()), ["latency"], batch_size=8, seconds=0.01)["latency_ms"]
    assert found.value > 0
    assert found.parameters["batch_size"] == 8
    assert found.parameters["threads"] == 1
    low, high = found.parameters["quartiles_ms"]
    assert 0 < low <= high
    assert net.training


def test_refusals():
    net = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="accuracy, loss needs data"):
        ps.measure(net, names=["accuracy", "loss"])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        ps.measure(net, names=["acuracy"])
    with pytest.raises(ConfigError, match="unknown option batchsize"):
        ps.measure(net, (torch.randn(3, 2), torch.zeros(3).long()), ["latency"], batchsize=3)
    with pytest.raises(DataError, match="3 samples but 2 labels"):
        ps.measure(net, (torch.randn(3, 2), torch.zeros(2).long()), ["accuracy"])
    with pytest.raises(DataError, match="holds no samples"):
        ps.measure(net, 7, ["accuracy"])
    with pytest.raises(ConfigError, match="unknown loss"):
        loss_function("hinge")


class Functional(nn.Module):
    """Activations as functions, one module called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(3, 3), nn.Linear(3, 2), nn.Tanh()

    def forward(self, x):
        return self.b(self.act(self.a(self.act(x))))


def test_capture_gives_every_call_in_order_and_leaves_no_hook():
    net, x = Functional(), torch.randn(5000, 3)
    values = capture(net, x, batch_size=1000)
    assert list(values) == ["act", "act#2", "output"]
    torch.testing.assert_close(values["act"], torch.tanh(x))
    torch.testing.assert_close(values["output"], net(x).detach())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert natural_range(net, "act#2") == (-1.0, 1.0)
    assert natural_range(net, "a") is None
    with pytest.raises(ConfigError, match="unknown layer 'c'"):
        capture(net, x, ["c"])


class Sequences(nn.Module):
    """A recurrent layer, a block of torch.nn's transformer and a linear layer."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 6, batch_first=True, bidirectional=True)
        self.block = nn.TransformerEncoderLayer(12, 2, 8, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(self.block(self.rnn(x)[0])[:, -1])


def test_states_tokens_and_maps_are_named():
    torch.manual_seed(0)
    net, x = Sequences().eval(), torch.randn(9, 5, 4)
    values = capture(net, x, batch_size=4)
    assert list(values) == ["rnn@last", "block@tokens", "output"]
    outputs, state = net.rnn(x)
    torch.testing.assert_close(values["rnn@last"], torch.cat([state[0], state[1]], 1))
    torch.testing.assert_close(values["rnn@last"][:, :6], outputs[:, -1, :6])
    torch.testing.assert_close(values["rnn@last"][:, 6:], outputs[:, 0, 6:])
    torch.testing.assert_close(values["block@tokens"], net.block(outputs).mean(1), atol=1e-5, rtol=1e-5)
    both = capture(net, x, ["rnn", "rnn@tokens", "block@last"])
    torch.testing.assert_close(both["rnn"], outputs)
    torch.testing.assert_close(both["rnn@tokens"], outputs.mean(1))
    torch.testing.assert_close(both["block@last"], net.block(outputs)[:, -1], atol=1e-5, rtol=1e-5)
    assert natural_range(net, "rnn@last") == (-1.0, 1.0)
    maps = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU())
    pooled = capture(maps, torch.randn(4, 2, 7), ["1@maps", "output"])
    torch.testing.assert_close(pooled["1@maps"], pooled["output"].mean(2))


def test_a_recurrent_layer_with_steps_first_gives_samples_first():
    class StepsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 6)

        def forward(self, x):
            return self.rnn(x.transpose(0, 1))[0][-1]

    net, x = StepsFirst(), torch.randn(7, 5, 4)
    values = capture(net, x, ["rnn", "rnn@last", "output"])
    assert values["rnn"].shape == (7, 5, 6)
    torch.testing.assert_close(values["rnn@last"], values["output"])
    torch.testing.assert_close(values["rnn"][:, -1], values["output"])


def test_a_model_may_say_which_layers_to_look_at():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    net.plane_layers = ["0"]
    assert activations_of(net) == ["0"]
    assert list(capture(net, torch.randn(4, 3))) == ["0", "output"]


def test_parts_of_layers_that_are_not_there():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    x = torch.randn(3, 1, 8, 8)
    with pytest.raises(ConfigError, match="did you mean 'tokens'"):
        capture(net, x, ["0@token"])
    with pytest.raises(ConfigError, match="or use @maps"):
        capture(net, x, ["0@tokens"])
    with pytest.raises(ConfigError, match="nothing to pool"):
        capture(net, x, ["2@maps"])
    with pytest.raises(ConfigError, match="unknown layer '9'"):
        capture(net, x, ["9@maps"])


def test_pooled_layers_are_no_chain():
    """What a later layer sees is not what was pooled, so that it may know more."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 12), nn.Tanh(), nn.Linear(12, 4))
    x, y = torch.randn(300, 1, 8, 8), torch.arange(300) % 4
    flags = {}
    for layers in (["1@maps", "4"], ["1", "4"]):
        plane = ps.InformationPlane(net, x, y, layers=layers, estimators=[{"name": "binning", "bins": 3}])
        flags[layers[0]] = {f for p in plane.record(0) for f in p.estimate.flags}
    assert "exceeds-earlier-layer" not in flags["1@maps"]
    mean = ps.InformationPlane(net, x, y, layers=["1"], spatial="mean", estimators=[{"name": "binning", "bins": 3}]).record(0)
    named = ps.InformationPlane(net, x, y, layers=["1@maps"], estimators=[{"name": "binning", "bins": 3}]).record(0)
    assert [p.estimate.value for p in mean] == [p.estimate.value for p in named]


def test_products_inside_attention_and_lstm_are_counted():
    net = nn.Sequential(nn.LSTM(4, 6, batch_first=True))
    data = (torch.randn(2, 5, 4), torch.zeros(2).long())

    class First(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)[0] if isinstance(self.inner, nn.LSTM) else self.inner(x, x, x, need_weights=False)[0]

    assert ps.measure(First(net[0]), data, ["flops"])["flops"].value == 2 * 5 * 4 * 6 * (4 + 6)
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    projections, products = 2 * 5 * 4 * 4 * 4, 2 * 2 * 5 * 5 * 4
    assert ps.measure(First(attention), data, ["flops"])["flops"].value == projections + products
    assert torch.backends.mha.get_fastpath_enabled()


def test_without_activation_modules_the_layers_themselves_are_taken():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    assert activations_of(net) == ["0", "1"]


def test_the_plane_in_anybodys_loop():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(200, 4)
    y = (x[:, 0] > 0).long()
    plane = ps.InformationPlane(net, x, y, estimators=[{"name": "binning", "bins": 5}])
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    plane.record(0)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    plane.record(60)
    table = plane.to_frame()
    assert set(table["quantity"]) == {"mi_input", "mi_label", "entropy"}
    assert set(table["layer"]) == {"1", "output"}
    output = table[(table["layer"] == "output") & (table["quantity"] == "mi_label")].set_index("epoch")["value"]
    assert output[60] > output[0]
    assert 0.8 < output[60] <= 1.0
    figure = plane.plot()
    assert figure.axes[0].get_xlabel() == "I(X;T) [bits]"


def test_convergence_uses_more_and_more_of_the_samples():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    plane = ps.InformationPlane(net, torch.randn(400, 4), torch.arange(400) % 2, estimators=[{"name": "binning", "bins": 10}])
    entropies = {p.estimate.n: p.estimate.value for p in plane.convergence() if (p.layer, p.quantity) == ("1", "entropy")}
    assert list(entropies) == [100, 200, 400]
    assert entropies[100] < entropies[200] < entropies[400], "plug-in entropy of many cells grows with the samples"
    recorded = {p.estimate.value for p in plane.record(0) if (p.layer, p.quantity) == ("1", "entropy")}
    assert recorded == {entropies[400]}


def test_a_plot_shows_one_of_several_estimators_of_a_name():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    bins = [{"name": "binning", "bins": n} for n in (3, 30)]
    plane = ps.InformationPlane(net, torch.randn(200, 4), torch.arange(200) % 2, estimators=bins)
    plane.record(0)
    table = plane.to_frame()
    held = table[table["quantity"] == "mi_input"].groupby("layer")["value"].agg(list)["1"]
    assert held[0] < held[1], "wide bins tell less"
    for number in (0, 1):
        axes = plane.plot(number=number).axes[0]
        assert held[number] in axes.collections[0].get_offsets()[:, 0]
        assert f"{bins[number]['bins']} equal bins" in axes.get_title()
    with pytest.raises(DataError, match="number 2"):
        plane.plot(number=2)


def test_an_empty_plane_and_unpaired_labels_are_refused():
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with pytest.raises(DataError, match="empty"):
        ps.InformationPlane(net, torch.randn(5, 4), torch.zeros(5).long()).plot()
    with pytest.raises(ps.PrunescopeError, match="as many samples"):
        ps.InformationPlane(net, torch.randn(5, 4), torch.zeros(4).long())


class Counting(nn.Module):
    """Counts how many samples go through; a layer that is called twice among its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second, self.last = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.last(self.relu(self.second(self.relu(self.first(x)))))


@pytest.mark.parametrize("held", [1, 6 * 4 * 50, 1 << 20])
def test_a_plane_holds_only_some_layers_at_a_time_and_says_the_same(monkeypatch, held):
    from prunescope.measures import capture as capturing

    torch.manual_seed(0)
    model, x, y = Counting(), torch.randn(50, 6), torch.arange(50) % 3
    whole = capturing.capture(model, x)
    monkeypatch.setattr(capturing, "HELD_BYTES", held)
    parts = capturing.streamed(model, x)
    assert list(parts) == list(whole) == ["relu", "relu#2", "output"]
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert parts.passes == {1: 2, 6 * 4 * 50: 2, 1 << 20: 1}[held]
    plane = ps.InformationPlane(model, x, y, estimators=["binning", "kde"])
    model.seen = 0
    points = plane.record(0)
    # a probe, and a pass for each group of layers whatever the number of estimators; calls of one module come together
    assert model.seen == 1 + 50 * parts.passes
    monkeypatch.undo()
    assert [(p.layer, p.quantity, p.estimate.value) for p in ps.InformationPlane(model, x, y, estimators=["binning", "kde"]).record(0)] == [
        (p.layer, p.quantity, p.estimate.value) for p in points
    ]
