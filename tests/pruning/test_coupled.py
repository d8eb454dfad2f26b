"""Granularities that follow the graph, through `prune`: all slots agree, counts are exact, and refusals say why."""

import copy

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning import couple, targets
from prunescope.types import ConfigError, PruningError, Split
from zoo import ZOO, Block, Fused, randomised


def residual() -> tuple[nn.Module, torch.Tensor]:
    model, (x,) = ZOO["resnet"]()
    return model, x


def gone(mask: torch.Tensor, dim: int) -> list[int]:
    """Indices along `dim` of which nothing is kept."""
    return (~mask.movedim(dim, 0).flatten(1).any(1)).nonzero().flatten().tolist()


def test_a_channel_goes_in_every_layer_that_has_it():
    model, x = residual()
    masks = ps.prune(model, sparsity=0.25, granularity="channel", example_inputs=x)
    removed = gone(masks["0.0.weight"], 0)
    assert len(removed) == 2
    for name in ("1.body.3.weight", "2.body.3.weight"):
        assert gone(masks[name], 0) == removed
    for name in ("1.body.0.weight", "2.body.0.weight", "3.body.0.weight", "3.short.0.weight"):
        assert gone(masks[name], 1) == removed, "what it feeds is removed too"
    for name in ("0.1.weight", "0.1.bias", "1.body.4.bias"):
        assert (~masks[name]).nonzero().flatten().tolist() == removed
    assert gone(masks["5.2.weight"], 0) == [], "no output goes"
    stream = model[2](model[1](model[0](x)))
    assert (stream[:, removed] == 0).all()
    assert (stream[:, [c for c in range(8) if c not in removed]] != 0).any()


def test_a_coupled_channel_is_scored_by_all_weights_that_compute_it():
    model, x = residual()
    weights = dict(model.named_parameters())
    producers = ("0.0.weight", "1.body.3.weight", "2.body.3.weight")
    scores = torch.stack([weights[n].detach().flatten(1).square().sum(1) for n in producers]).sum(0)
    masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=x)
    assert sorted(gone(masks["0.0.weight"], 0)) == sorted(scores.argsort()[:4].tolist())


def test_biases_stay_where_asked():
    model, x = residual()
    masks = ps.prune(model, sparsity=0.25, granularity="channel", example_inputs=x, biases="keep")
    assert not any(n.endswith("bias") or masks[n].ndim == 1 for n in masks)


def test_a_set_with_an_excluded_layer_is_left_alone():
    model, x = residual()
    masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=x, exclude=["2.body.3"])
    assert "0.0.weight" not in masks or gone(masks["0.0.weight"], 0) == []
    assert len(gone(masks["1.body.0.weight"], 0)) == 4
    with pytest.raises(PruningError, match=r"channel: Sequential has no channels.*frozen are 5\.2\.weight: leaves the network"):
        ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=x, layers=["2.body.3"])


def test_global_channels_are_counted_exactly():
    model, x = residual()
    pieces = [f.pieces for f in couple(model, x).families]
    masks = ps.prune(model, sparsity=0.3, granularity="channel", allocation="global", example_inputs=x, allow_empty=True)
    stages = ("0.0.weight", "1.body.0.weight", "2.body.0.weight", "3.body.0.weight", "3.body.3.weight", "4.body.0.weight")
    assert sum(len(gone(masks[n], 0)) for n in stages if n in masks) == round(0.3 * sum(pieces))


@pytest.mark.parametrize("data", ["split", "pair", "batches"])
def test_calibration_data_serve_as_example_inputs(data):
    model, x = residual()
    y = torch.zeros(len(x), dtype=torch.int64)
    given = {"split": Split(x, y), "pair": (x, y), "batches": [(x, y), (x, y)]}[data]
    expected = ps.prune(copy.deepcopy(model), sparsity=0.5, granularity="channel", example_inputs=x)
    found = ps.prune(model, sparsity=0.5, granularity="channel", data=given)
    assert all(torch.equal(found[n], m) for n, m in expected.items())


def transformer() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    blocks = (Block(16, Fused(16, 4, False)), Block(16, Fused(16, 4, True)))
    model = nn.Sequential(nn.Linear(6, 16), *blocks, nn.LayerNorm(16), nn.Linear(16, 3))
    return randomised(model), torch.randn(2, 5, 6)


def test_heads_go_whole_and_others_compute_as_before():
    model, x = transformer()
    masks = ps.prune(model, sparsity=0.5, granularity="head", example_inputs=x)
    assert {n.split(".")[1] for n in masks} == {"attention"}
    mask = masks["1.attention.qkv.weight"].view(3, 4, 4, 16)
    heads = mask.flatten(2).any(2)
    assert torch.equal(heads, heads[:1].expand(3, 4)), "queries, keys and values of a head go together"
    assert int((~heads[0]).sum()) == 2
    assert gone(masks["1.attention.proj.weight"], 1) == [4 * h + i for h in (~heads[0]).nonzero().flatten().tolist() for i in range(4)]


def test_hidden_units_of_an_mlp():
    model, x = transformer()
    masks = ps.prune(model, sparsity=0.25, granularity="mlp-unit", example_inputs=x)
    assert {n.partition("mlp.")[2] for n in masks} == {"0.weight", "0.bias", "2.weight"}
    assert gone(masks["1.mlp.0.weight"], 0) == gone(masks["1.mlp.2.weight"], 1)
    assert len(gone(masks["1.mlp.0.weight"], 0)) == 5
    model, (x,) = ZOO["mlp"]()
    with pytest.raises(PruningError, match="mlp-unit: Sequential has no MLP in a residual branch"):
        ps.prune(model, sparsity=0.5, granularity="mlp-unit", example_inputs=x)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_whole_layers_leave_the_network_working(criterion):
    model, x = transformer()
    masks = ps.prune(model, sparsity=0.75, granularity="layer", criterion=criterion, example_inputs=x)
    branches = [f"{b}.{kind}." for b in (1, 2) for kind in ("attention", "mlp")]
    empty = [b for b in branches if all(not masks[n].any() for n in masks if n.startswith(b))]
    assert len(empty) == 3, "3 of 4 residual branches"
    survivor = next(b for b in branches if b not in empty)
    assert all(masks[n].all() for n in masks if n.startswith(survivor))
    assert model(x).std() > 0
    with pytest.raises(PruningError, match=r"nothing would be left of residual branches \(4\)"):
        ps.prune(model, sparsity=1.0, granularity="layer", example_inputs=x)
    model, (x,) = ZOO["lenet"]()
    with pytest.raises(PruningError, match="layer: Sequential has no residual branch"):
        ps.prune(model, sparsity=0.5, granularity="layer", example_inputs=x)


def test_a_branch_goes_by_the_norm_of_all_its_weights():
    model, x = transformer()
    with torch.no_grad():
        for p in model[2].mlp.parameters():
            p.mul_(1e-3)
    masks = ps.prune(model, sparsity=0.25, granularity="layer", example_inputs=x)
    assert not masks["2.mlp.0.weight"].any()
    assert masks["1.mlp.0.weight"].all()


def test_a_functional_output_layer_exempts_no_layer_before_it():
    """The decoder multiplies with the encoder's transposed weights: the encoder's last layer is not the output layer."""
    model, inputs = ZOO["tiedautoencoder"]()
    assert {t.name for t in targets.targets(model)} == {"one.weight", "two.weight"}
    masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=inputs)
    assert len(gone(masks["two.weight"], 0)) == 3
    assert gone(masks["one.weight"], 1) == [], "these leave the network"


def test_an_output_layer_tied_to_the_embedding_exempts_no_other():
    model, (x,) = ZOO["gpt"]()
    assert "blocks.1.mlp.2.weight" in {t.name for t in targets.targets(model)}
    masks = ps.prune(model, sparsity=0.25, granularity="channel", example_inputs=x)
    assert gone(masks["words.weight"], 1) == gone(masks["blocks.0.attention.proj.weight"], 0)
    assert "out.weight" not in masks, "a tied weight has one mask, under its first name"
    assert model.out.weight is model.words.weight


def test_a_tied_layer_answers_to_all_its_names():
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    net[2].weight = net[0].weight
    assert set(ps.prune(net, sparsity=0.5, layers=["2"])) == {"0.weight"}
    with pytest.raises(PruningError, match="nothing is left to prune"):
        ps.prune(net, sparsity=0.5, exclude=["2"])


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_named():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.fc.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)

    with pytest.raises(PruningError, match=r"fc\.weight is quantised.*prune first"):
        ps.prune(Packed(), sparsity=0.5)
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(PruningError, match=r"0\.weight is quantised"):
        ps.prune(dynamic, sparsity=0.5)


def test_options_of_others_are_refused():
    model, x = transformer()
    with pytest.raises(ConfigError, match="unknown pruning option"):
        ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=x, options={"shape": [2, 2]})


def test_a_loader_is_looked_into_for_an_example_and_draws_nothing_from_the_global_generator():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    rows = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.zeros(20).long())
    before = torch.get_rng_state()
    masks = ps.prune(net, sparsity=0.5, granularity="channel", data=torch.utils.data.DataLoader(rows, 5, shuffle=True))
    assert masks["0.weight"].any(1).sum() == 4
    assert torch.equal(torch.get_rng_state(), before)
