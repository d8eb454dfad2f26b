"""The training loop against a plain one, its events, seeds and refusals."""

import itertools

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope import rng
from prunescope.config import TrainingConfig
from prunescope.training import load_weights, save_weights, train
from prunescope.training.events import EVENTS
from prunescope.types import ConfigError, Split, StoreError


def problem(n: int = 100) -> Split:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator)
    return Split(x, (x[:, 0] + x[:, 1] > 0).long())


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


SETTINGS = {
    "sgd": TrainingConfig(epochs=3, batch_size=16, lr=0.1),
    "nesterov, decay, milestones": TrainingConfig(
        epochs=4, batch_size=16, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, schedule="milestones", milestones=[1, 2], gamma=0.5
    ),
    "adam, cosine": TrainingConfig(epochs=3, batch_size=32, optimizer="adam", lr=0.01, schedule="cosine"),
    "adamw, drop last": TrainingConfig(epochs=3, batch_size=32, optimizer="adamw", lr=0.01, weight_decay=0.1, drop_last=True),
    "full batch": TrainingConfig(epochs=5, batch_size="full", lr=0.5),
}


def plain(model: nn.Module, data: Split, s: TrainingConfig, seed: int) -> None:
    """The same training written out with nothing of ours but the order of rows."""
    kinds = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), s.lr, s.momentum, weight_decay=s.weight_decay, nesterov=s.nesterov),
        "adam": lambda: torch.optim.Adam(model.parameters(), s.lr, weight_decay=s.weight_decay),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), s.lr, weight_decay=s.weight_decay),
    }
    optimizer = kinds[s.optimizer]()
    for epoch in range(s.epochs):
        if s.schedule == "milestones":
            optimizer.param_groups[0]["lr"] = s.lr * s.gamma ** sum(epoch >= m for m in s.milestones)
        elif s.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = s.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / s.epochs)).item())
        n = len(data)
        size = n if s.batch_size == "full" else s.batch_size
        order = torch.arange(n) if size >= n else torch.randperm(n, generator=rng.torch_generator(seed, "train", "order", epoch))
        for rows in order.split(size):
            if s.drop_last and len(rows) < size:
                continue
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[rows]), data.y[rows]).backward()
            optimizer.step()


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_a_plain_loop(name):
    ours, theirs, data = net(), net(), problem()
    state = train(ours, data, SETTINGS[name], seed=7)
    plain(theirs, data, SETTINGS[name], seed=7)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
    assert state.epoch == SETTINGS[name].epochs


def test_rows_are_gathered_in_parts_without_changing_the_order(monkeypatch):
    import prunescope.training.loop as loop

    one, two, data = net(), net(), problem()
    train(one, data, SETTINGS["sgd"], seed=0)
    monkeypatch.setattr(loop, "GATHER_BYTES", 1000)
    train(two, data, SETTINGS["sgd"], seed=0)
    assert torch.equal(weights(one), weights(two))


def test_seeded_and_the_global_generator_is_put_back():
    def trained(seed: int) -> torch.Tensor:
        model = nn.Sequential(*net(), nn.Dropout(0.5))
        before = torch.get_rng_state()
        train(model, problem(), SETTINGS["sgd"], seed=seed)
        assert torch.equal(torch.get_rng_state(), before), "training must not move the global generator"
        return weights(model)

    first = trained(1)
    torch.rand(10)
    assert torch.equal(first, trained(1)), "dropout draws depend on the seed alone"
    assert not torch.equal(first, trained(2))


def test_events_come_in_the_order_drawn():
    heard = []

    class Ear:
        pass

    for event in EVENTS:
        setattr(Ear, event, lambda self, state, event=event: heard.append((event, state.epoch, state.steps)))
    train(net(), problem(20), TrainingConfig(epochs=2, batch_size=10), seed=0, listeners=[Ear()])
    names = [h[0] for h in heard]
    epoch = ["epoch_start", "gradients", "step", "gradients", "step", "epoch_end"]
    assert names == ["start", *epoch, *epoch, "end"]
    assert heard[-1][1:] == (2, 4)
    assert all(a[2] <= b[2] for a, b in itertools.pairwise(heard))


def test_a_listener_may_stop_the_training():
    class Enough:
        def epoch_end(self, state):
            state.stop = state.epoch == 2

    assert train(net(), problem(), SETTINGS["sgd"], seed=0, listeners=[Enough()]).epoch == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_masks_hold_through_training(optimizer):
    model = net()
    masks = ps.prune(model, sparsity=0.5)
    momentum = 0.9 if optimizer == "sgd" else 0.0
    settings = TrainingConfig(epochs=3, batch_size=16, optimizer=optimizer, lr=0.05, momentum=momentum, weight_decay=0.1)
    train(model, problem(), settings, seed=0, masks=masks)
    assert (model[0].weight[~masks["0.weight"]] == 0).all()
    assert (model[0].weight[masks["0.weight"]] != 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"nesterov": True}, "nesterov needs momentum"),
        ({"optimizer": "adam", "momentum": 0.9}, "has no effect with adam"),
        ({"batch_size": 1000, "drop_last": True}, "leaves no batch"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        train(net(), problem(), TrainingConfig(**settings), seed=0)


def test_nothing_to_train_on_and_nothing_to_hear():
    with pytest.raises(ConfigError, match="no training samples"):
        train(net(), Split(torch.empty(0, 5), torch.empty(0).long()), SETTINGS["sgd"], seed=0)
    with pytest.raises(ConfigError, match="hears none of the events"):
        train(net(), problem(), SETTINGS["sgd"], seed=0, listeners=[object()])


def test_checkpoints_round_trip_and_tied_weights_stay_tied(tmp_path):
    model, other = net(0), net(1)
    save_weights(model, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(weights(model), weights(other))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "t.safetensors")
    load_weights(tied, tmp_path / "t.safetensors")
    assert tied[0].weight is tied[1].weight
    with pytest.raises(StoreError, match="cannot be read as weights of Linear"):
        load_weights(nn.Linear(5, 8), tmp_path / "w.safetensors")
    with pytest.raises(StoreError, match="could not be written"):
        save_weights(model, tmp_path / "no" / "such" / "folder")


@pytest.mark.parametrize(
    "schedule", [{}, {"schedule": "cosine"}, {"schedule": "milestones", "milestones": [2, 4]}], ids=["constant", "cosine", "steps"]
)
def test_a_training_from_an_epoch_on_is_the_rest_of_the_whole(schedule):
    """Plain gradient descent remembers nothing: weights of epoch 3 and the rest of the schedule give the same end."""
    whole, rest, data = net(), net(), problem()
    settings = TrainingConfig(epochs=6, batch_size=16, lr=0.2, **schedule)
    kept, rates = {}, []

    class Keep:
        def epoch_end(self, state):
            rates.append(state.optimizer.param_groups[0]["lr"])
            if state.epoch == 3:
                kept.update({n: v.clone() for n, v in state.model.state_dict().items()})

    train(whole, data, settings, seed=2, listeners=[Keep()])
    first, rates[:] = list(rates), []
    rest.load_state_dict(kept)
    state = train(rest, data, settings.model_copy(update={"from_epoch": 3}), seed=2, listeners=[Keep()])
    assert state.epoch == 6
    assert rates == pytest.approx(first[3:])
    assert torch.equal(weights(rest), weights(whole))


def test_an_optimiser_of_ones_own_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def broken(parameters, settings):\n    return {}['momentum']\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"data": {"name": "digits", "flatten": True}, "model": {"name": "mlp"}, "training": {"optimizer": "mine:broken"}}
    with pytest.raises(ConfigError, match="optimizer 'mine:broken' raised KeyError: 'momentum': mend the function"):
        ps.run(config, out=tmp_path / "run", engine="serial")
    assert not (tmp_path / "run").exists()
