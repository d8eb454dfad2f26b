"""Pruner in anybody's loop: levels by schedule, exact zeros, counts of optimiser steps, state, soft masks, named errors."""

import copy
import io

import pytest
import safetensors.torch
import torch
from looped import HIDDEN, batch, masked_values, net, removed, sgd, step
from torch import nn

import prunescope as ps
from prunescope.pruning.schedules import between
from prunescope.registry import schedules
from prunescope.types import ConfigError, PruningError

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
}


@pytest.mark.parametrize("name", schedules.names())
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masks_follow_the_schedule_and_masked_weights_are_exactly_zero(name, optimizer):
    model = net()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    pruner = ps.Pruner(model, optimizer, sparsity=0.75, schedule=name, begin=3, end=13, every=4)
    earlier = pruner.masks
    for number in range(1, 18):
        step(model, optimizer)
        assert pruner.steps == number
        assert (masked_values(model, pruner.masks) == 0).all()
        if number < 3:
            assert len(pruner.masks) == 0
        if number in (3, 7, 11, 13):
            level = between(schedules.get(name), (number - 3) / 10, 0.75)
            assert pruner.level == pytest.approx(level)
            assert removed(pruner.masks) == [round(level * n) for n in (96, 128)]
        if number in (4, 6, 12, 16):
            assert pruner.masks is earlier, "between updates nothing changes"
        assert all((pruner.masks[n] <= earlier[n]).all() for n in earlier), "what is removed stays removed"
        earlier = pruner.masks
    assert removed(pruner.finish()) == [72, 96]
    assert (torch.cat([p.detach()[pruner.masks[n]] for n, p in model.named_parameters() if n in HIDDEN]) != 0).all()


def test_one_shot_prunes_at_its_beginning_and_from_the_first_moment_at_zero():
    model = net()
    pruner = ps.Pruner(model, sgd(model), sparsity=0.5, schedule="one-shot")
    assert removed(pruner.masks) == [48, 64]
    late = net()
    optimizer = sgd(late)
    pruner = ps.Pruner(late, optimizer, sparsity=0.5, schedule="one-shot", begin=2)
    step(late, optimizer)
    assert removed(pruner.masks) == [0, 0]
    step(late, optimizer)
    assert removed(pruner.masks) == [48, 64]


def test_a_schedule_may_start_from_a_sparse_network():
    model = net()
    optimizer = sgd(model)
    masks = ps.prune(model, sparsity=0.5)
    pruner = ps.Pruner(model, optimizer, sparsity=0.75, start=0.5, end=4, every=2, masks=masks)
    assert pruner.masks.sparsity() == pytest.approx(0.5)
    for _ in range(2):
        step(model, optimizer)
    assert pruner.level == pytest.approx(0.75 + (0.5 - 0.75) * 0.5**3)
    assert all((pruner.masks[n] <= masks[n]).all() for n in masks)


def test_the_hook_ends_with_finish_and_says_where_it_stopped_short():
    model = net()
    optimizer = sgd(model, momentum=0.9)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, end=4, every=2)
    for _ in range(3):
        step(model, optimizer)
    with pytest.warns(UserWarning, match=r"after 3 steps at sparsity 0\.4375, before the schedule's end at step 4 with 0\.5"):
        masks = pruner.finish()
    step(model, optimizer)
    assert pruner.steps == 3
    assert (masked_values(model, masks) != 0).any(), "nothing holds the masks any more"


def test_steps_by_hand_and_accumulated_gradients_count_optimiser_steps():
    model = net()
    optimizer = sgd(model)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, end=4, every=2, automatic=False)
    for _ in range(4):
        optimizer.zero_grad()
        for _ in range(3):
            x, y = batch()
            (nn.functional.cross_entropy(model(x), y) / 3).backward()
        optimizer.step()
        assert (masked_values(model, pruner.masks) == 0).all()
        pruner.step()
    assert pruner.steps == 4
    assert removed(pruner.finish()) == [48, 64]
    bare = net()
    alone = ps.Pruner(bare, sparsity=0.5, end=2, every=1, automatic=False)
    alone.step()
    alone.step()
    assert removed(alone.masks) == [48, 64]
    counted = ps.Pruner(model, optimizer, sparsity=0.5)
    with pytest.raises(ConfigError, match="counts the steps already"):
        counted.step()


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_grad_scaler_leaves_out_do_not_count(fused):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, end=4, every=1)
    for number in range(6):
        optimizer.zero_grad()
        x, y = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss * (float("inf") if number in (1, 3) else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert (masked_values(model, pruner.masks) == 0).all()
    assert pruner.steps == 4
    assert removed(pruner.finish()) == [48, 64]
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_have_plain_names(backend):
    model = net()
    compiled = torch.compile(model, backend=backend)
    optimizer = OPTIMIZERS["adam"](compiled.parameters())
    pruner = ps.Pruner(compiled, optimizer, sparsity=0.5, end=4, every=2)
    for _ in range(5):
        step(compiled, optimizer)
        assert (masked_values(model, pruner.masks) == 0).all()
    assert set(pruner.masks) == set(HIDDEN)
    assert (masked_values(model, pruner.masks) == 0).all()
    assert pruner.masks.bind(compiled).sparsity() == pytest.approx(0.5)


def test_compiled_blocks_inside_a_model_keep_their_plain_names():
    model = net()
    plain = copy.deepcopy(model)
    model[2] = torch.compile(model[2], backend="eager")
    masks = ps.prune(model, sparsity=0.5)
    assert (dict(plain.named_parameters())["2.weight"] != 0).all()
    masks.bind(plain).apply()
    assert int((plain[2].weight == 0).sum()) == 64


def test_the_model_stays_as_it_was_and_can_be_copied():
    model = net()
    optimizer = sgd(model, momentum=0.9)
    keys, hooks = list(model.state_dict()), (len(model._forward_hooks), len(model._forward_pre_hooks))
    for soft in (False, True):
        pruner = ps.Pruner(model, optimizer, sparsity=0.5, schedule="one-shot", soft=soft, every=2)
        step(model, optimizer)
        assert list(model.state_dict()) == keys
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == hooks
        twin = copy.deepcopy(model)
        assert torch.equal(twin[0].weight, model[0].weight)
        assert torch.equal(copy.deepcopy(pruner.masks)["0.weight"], pruner.masks["0.weight"])
        pruner.finish()


@pytest.mark.parametrize(
    "options",
    [{"end": 8, "every": 2}, {"end": 8, "every": 2, "soft": True}, {"dynamic": "rigl", "end": 20, "every": 2}],
    ids=["gradual", "soft", "rigl"],
)
def test_state_of_numbers_and_tensors_goes_on_where_it_was(options):
    def made():
        model = net()
        optimizer = sgd(model, momentum=0.9)
        return model, optimizer, ps.Pruner(model, optimizer, sparsity=0.5, **options)

    def train(model, optimizer, first, last):
        for number in range(first, last):
            torch.manual_seed(number)
            step(model, optimizer)

    whole, optimizer, pruner = made()
    train(whole, optimizer, 0, 10)
    half, first_optimizer, first = made()
    train(half, first_optimizer, 0, 5)
    buffer = io.BytesIO()
    torch.save([half.state_dict(), first_optimizer.state_dict(), first.state_dict()], buffer)
    buffer.seek(0)
    weights, moments, state = torch.load(buffer, weights_only=True)
    again, second_optimizer, second = made()
    again.load_state_dict(weights)
    second_optimizer.load_state_dict(moments)
    second.load_state_dict(state)
    assert second.steps == 5
    train(again, second_optimizer, 5, 10)
    assert all(torch.equal(second.masks[n], pruner.masks[n]) for n in pruner.masks)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), whole.parameters(), strict=True))
    tensors = {n: m.to(torch.uint8) for n, m in state["masks"].items()}
    safetensors.torch.save(tensors)


def test_a_foreign_state_is_refused():
    model = net()
    pruner = ps.Pruner(model, sgd(model), sparsity=0.5, soft=True)
    with pytest.raises(PruningError, match="lacks behind, level, masks"):
        pruner.load_state_dict({"steps": 1})
    with pytest.raises(PruningError, match="unknown parameter of Sequential 'x'"):
        pruner.load_state_dict({"steps": 1, "level": 0.5, "masks": {"x": torch.ones(2)}, "behind": {}})
    with pytest.raises(PruningError, match="no weights of shape"):
        pruner.load_state_dict({"steps": 1, "level": 0.5, "masks": {"0.weight": torch.ones(16, 6)}, "behind": {}})


def test_soft_masks_pass_gradients_to_all_weights():
    """One step of plain gradient descent: the dense weights move by the gradient that the masked network has (Lin et al. 2020, eq. 2)."""
    model = net()
    dense = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = sgd(model)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, schedule="one-shot", soft=True, every=1)
    masks = dict(pruner.masks)
    x, y = batch()
    twin = copy.deepcopy(model)
    assert all(torch.equal(p, dense[n] * masks.get(n, True)) for n, p in twin.named_parameters())
    nn.functional.cross_entropy(twin(x), y).backward()
    slopes = {n: p.grad for n, p in twin.named_parameters()}
    assert all((slopes[n][~m] != 0).any() for n, m in masks.items())
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    expected = {n: dense[n] - 0.1 * slopes[n] for n in dense}
    behind = pruner.state_dict()["behind"]
    for name in HIDDEN:
        torch.testing.assert_close(behind[name], expected[name])
        count = round(0.5 * expected[name].numel())
        kept = expected[name].abs().flatten().argsort(stable=True)[count:]
        assert set(kept.tolist()) == set(pruner.masks[name].flatten().nonzero().flatten().tolist()), "masks are chosen from dense weights"
    assert all(torch.equal(p, behind[n] * pruner.masks[n]) for n, p in model.named_parameters() if n in pruner.masks)


def test_soft_masks_let_weights_come_back():
    model = net()
    optimizer = sgd(model)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, end=10, every=2, soft=True)
    ever, back = {}, 0
    for _ in range(60):
        step(model, optimizer)
        assert (masked_values(model, pruner.masks) == 0).all()
        for name, mask in pruner.masks.items():
            back += int((mask & ever.get(name, torch.zeros_like(mask))).sum())
            ever[name] = ever.get(name, torch.zeros_like(mask)) | ~mask
    assert back > 0
    assert removed(pruner.finish()) == [48, 64]
    assert (masked_values(model, pruner.masks) == 0).all()


def test_units_go_with_their_biases_and_soft_units_too():
    for soft in (False, True):
        model = net()
        optimizer = sgd(model, momentum=0.9)
        pruner = ps.Pruner(model, optimizer, sparsity=0.5, end=4, every=2, granularity="neuron", soft=soft)
        for _ in range(6):
            step(model, optimizer)
        assert int((~pruner.masks["0.bias"]).sum()) == 8
        assert (masked_values(model, pruner.masks) == 0).all()


@pytest.mark.parametrize("criterion", ["snip", "taylor", "wanda", "sparsegpt", "movement", "apoz"])
@pytest.mark.parametrize("soft", [False, True])
def test_criteria_that_look_at_data_score_inside_the_loop(criterion, soft):
    model = net()
    initial = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = sgd(model, momentum=0.9)
    options = {"granularity": "neuron"} if criterion == "apoz" else {}
    data = [batch() for _ in range(3)]
    pruner = ps.Pruner(
        model, optimizer, criterion=criterion, sparsity=0.5, end=4, every=2, soft=soft, data=data, samples=80,
        loss_fn=nn.functional.cross_entropy, initial=initial, **options,
    )  # fmt: skip
    for number in range(1, 7):
        x, y = batch()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        slopes = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, s) for p, s in zip(model.parameters(), slopes, strict=True)), "scoring leaves gradients alone"
        assert (masked_values(model, pruner.masks) == 0).all()
        assert number < 2 or len(pruner.masks)
    assert removed(pruner.finish()) == [48, 64]


def test_patterns_go_at_once_and_soft_patterns_are_chosen_again():
    model = net()
    model[0] = nn.Linear(8, 16)
    optimizer = sgd(model)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, schedule="one-shot", granularity="2:4", soft=True, every=1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        for name in HIDDEN:
            assert (pruner.masks[name].view(-1, 4).sum(1) == 2).all()
            assert (dict(model.named_parameters())[name][~pruner.masks[name]] == 0).all()


def test_calibration_data_are_read_once_and_cut():
    from prunescope.pruning.pruner import read_calibration

    reads = []

    def loader():
        for number in range(5):
            reads.append(number)
            yield {"a": torch.full((4, 2), float(number))}, torch.arange(4)

    found = read_calibration(loader(), 10, torch.device("cpu"))
    assert reads == [0, 1, 2]
    assert [len(y) for _, y in found] == [4, 4, 2]
    assert found[2][0]["a"].shape == (2, 2)
    x, y = batch(20)
    assert torch.equal(read_calibration((x, y), 7, torch.device("cpu"))[0][0], x[:7])
    assert torch.equal(read_calibration(ps.Split(x, y), 100, torch.device("cpu"))[0][1], y)
    assert read_calibration(None, 5, torch.device("cpu")) is None
    with pytest.raises(PruningError, match="data gave a Tensor: expected"):
        read_calibration([x], 5, torch.device("cpu"))
    with pytest.raises(PruningError, match="holds no batch"):
        read_calibration([], 5, torch.device("cpu"))
