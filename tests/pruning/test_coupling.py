"""The coupling engine: on every network of the zoo, a removed channel is what it is said to be in every tensor, and gone behind its cut."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunescope as ps
from prunescope.pruning.coupling import Coupling, branches, couple
from prunescope.pruning.coupling.channels import FIRST, State, Value
from prunescope.types import PruningError
from zoo import ZOO, Block, Fused, Gated, Grouped, randomised, results


class Recorded(torch.fx.Interpreter):
    """The traced graph run on real numbers; `seen` holds the result of every node."""

    def __init__(self, coupling: Coupling, model: nn.Module, inputs) -> None:
        super().__init__(coupling.trace.graph)
        self.seen: dict = {}
        trace, remaining = coupling.trace, iter(inputs)
        held = {**dict(model.named_buffers()), **dict(model.named_parameters())}
        placeholders = [n for n in trace.graph.graph.nodes if n.op == "placeholder"]
        named = [held.get(trace.tensors.get(n.name)) for n in placeholders]
        arguments = [trace.constants.get(n.name) if t is None else t for n, t in zip(placeholders, named, strict=True)]
        with torch.no_grad():
            self.run(*[next(remaining) if a is None else a for a in arguments])
        self.outputs = [self.seen[n] for n in trace.outputs]

    def run_node(self, n):
        self.seen[n] = super().run_node(n)
        return self.seen[n]


def remove(model: nn.Module, families, step: int, *, only: str | None = None) -> list[int]:
    """Zero every `step`-th piece of each family in all its parameters, or in those with the role `only`; returns the sets."""
    parameters, gone = dict(model.named_parameters()), []
    for family in families:
        rows = torch.arange(family.pieces)[:: step if family.pieces > 1 else 1]
        gone += family.sets[rows.numpy()].tolist()
        for part in family.parts:
            if part.parameter and (only is None or only in part.roles):
                parameters[part.tensor].data.index_fill_(part.dim, part.index[rows].flatten(), 0.0)
    return gone


def example(name: str):
    model, inputs = ZOO[name]()
    return model.double(), tuple(i.double() if i.is_floating_point() else i for i in inputs)


def other(x: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(x) if x.is_floating_point() else x.flip(1)


def faults(coupling: Coupling, model: nn.Module, inputs, step: int) -> list[str]:
    """Places where a removed channel is not what its label says, for two inputs; empty when all is well."""
    gone = torch.zeros(int(coupling.sets.max()) + 1, dtype=torch.bool)
    masked = copy.deepcopy(model)
    gone[remove(masked, coupling.families, step)] = True
    one, two = (Recorded(coupling, masked, i).seen for i in (inputs, tuple(map(other, inputs))))
    sets, found = torch.from_numpy(coupling.sets), []
    for node, value in coupling.values.items():
        for label in value.labels if isinstance(value, Value) and node in one else ():
            removed = (gone[sets[label.ids]] & (label.ids >= FIRST)).expand(value.shape)
            if label.state is State.ZERO and bool((one[node][removed] != 0).any()):
                found.append(f"{node} is not zero")
            if label.state is State.CONST and not torch.allclose(one[node][removed], two[node][removed], rtol=0, atol=1e-12):
                found.append(f"{node} varies")
    return found


@pytest.mark.parametrize("name", [n for n, m in ZOO.items() if not m.missing])
def test_removed_channels_are_what_their_labels_say_and_cut_off(name):
    """Every second and every third channel; then, with only the consumers' slices at zero, the output is the fully masked network's."""
    model, inputs = example(name)
    coupling = couple(model, inputs)
    assert faults(coupling, model, inputs, 2) == []
    assert faults(coupling, model, inputs, 3) == []
    full, cut = copy.deepcopy(model), copy.deepcopy(model)
    remove(full, coupling.families, 2)
    clean = [f for f in coupling.families if not f.mixed]
    remove(cut, clean, 2, only="consumer")
    remove(cut, [f for f in coupling.families if f.mixed], 2)
    expected, found, dense = (results(m, inputs) for m in (full, cut, model))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(expected, found, strict=True))
    shows = any(not torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(expected, dense, strict=True))
    assert shows, "removing half of everything must show"


def test_a_forgotten_producer_is_noticed():
    """The check itself can fail: leave one coupled layer out of the removal."""
    model, inputs = example("resnet")
    coupling = couple(model, inputs)
    parts = coupling.families[0].parts
    object.__setattr__(coupling.families[0], "parts", tuple(p for p in parts if p.tensor != "1.body.4.bias"))
    assert any("not zero" in f for f in faults(coupling, model, inputs, 2))


def parts(coupling: Coupling, name: str) -> dict[tuple[str, int], list[list[int]]]:
    family = next(f for f in coupling.families if f.name == name)
    return {(p.tensor, p.dim): p.index.tolist() for p in family.parts if p.parameter}


def test_channels_that_constant_numbers_pick():
    """A permutation moves channels, a choice leaves some without a reader, and pairs that are added go together."""
    model, inputs = ZOO["picked"]()
    coupling = couple(model, inputs)
    assert parts(coupling, "one.weight")[("two.weight", 1)] == [[i] for i in [4, 1, 5, 0, 7, 3, 6, 2]], "where each channel stands"
    assert [f.name for f in coupling.families] == ["one.weight", "two.weight", "two.weight#2", "three.weight"]
    assert [f.pieces for f in coupling.families] == [8, 5, 3, 3]
    assert parts(coupling, "two.weight")[("two.weight", 0)] == [[0], [2], [3], [6], [7]]
    assert parts(coupling, "three.weight")[("out.weight", 1)] == [[0, 1], [2, 3], [4, 5]]


def test_columns_of_an_embedding_bag_are_channels():
    model, inputs = ZOO["textbag"]()
    assert parts(couple(model, inputs), "words.weight") == {
        ("words.weight", 1): [[i] for i in range(12)], ("hidden.weight", 1): [[i] for i in range(12)]
    }  # fmt: skip


def test_pieces_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.out = nn.Linear(3, 2), nn.Linear(3, 3), nn.Linear(2, 2), nn.Linear(5, 1)

        def forward(self, x):
            y = self.a(x)
            return self.out(torch.cat([self.b(x), y + self.c(torch.relu(y))], 1))

    coupling = couple(Net(), torch.randn(2, 3))
    first = parts(coupling, "a.weight")
    assert first == {
        ("a.weight", 0): [[0], [1]], ("a.bias", 0): [[0], [1]], ("c.weight", 0): [[0], [1]], ("c.weight", 1): [[0], [1]],
        ("c.bias", 0): [[0], [1]], ("out.weight", 1): [[3], [4]],
    }  # fmt: skip
    assert parts(coupling, "b.weight")["out.weight", 1] == [[0], [1], [2]]
    assert [(f.name, f.frozen) for f in coupling.frozen] == []  # one output has no channels to choose from


def test_a_key_and_value_head_goes_with_all_its_queries():
    coupling = couple(nn.Sequential(nn.Linear(6, 16), Grouped(16, 4, 2), nn.Linear(16, 3)), torch.randn(2, 5, 6))
    heads = next(f for f in coupling.families if f.heads)
    rows = {p.tensor: p.index.tolist() for p in heads.parts}
    assert rows["1.q.weight"] == [list(range(8)), list(range(8, 16))]
    assert rows["1.k.weight"] == rows["1.v.weight"] == [list(range(4)), list(range(4, 8))]
    assert rows["1.o.weight"] == rows["1.q.weight"]


def test_groups_of_a_convolution_stay_equal():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, groups=2), nn.Conv2d(8, 2, 1))
    coupling = couple(net, torch.randn(1, 3, 5, 5))
    assert parts(coupling, "0.weight")["0.weight", 0] == [[0, 3], [1, 4], [2, 5]]
    assert parts(coupling, "1.weight")["2.weight", 1] == [[0, 4], [1, 5], [2, 6], [3, 7]]


class Unknown(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.a, self.b, self.operation = nn.Linear(4, 4), nn.Linear(4, 2), operation

    def forward(self, x):
        return self.b(self.operation(self.a(x)))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (lambda y: torch.cdist(y, y) @ y, "no rule for cdist"),
        (lambda y: y.softmax(-1), "softmax"),
        (lambda y: y.sort(-1)[0], "sort"),
        (lambda y: y.amax(-1, keepdim=True).expand(-1, 4), "reduced by amax"),
        (lambda y: torch.fft.rfft(y).real.repeat(1, 2)[:, :4], "no rule for fft_rfft"),
        (lambda y: y + y.flip(-1), ""),
    ],
)
def test_what_cannot_be_followed_is_frozen_with_the_reason(operation, reason):
    coupling = couple(Unknown(operation), torch.randn(2, 4))
    why = [why for name, _, why in coupling.report() if name.startswith("a.weight")]
    assert all(reason in w for w in why)
    assert all(w for w in why) == bool(reason), "flipped channels go in pairs, the others not at all"


def test_no_forward_that_depends_on_values_is_taken_for_granted():
    class Branching(Unknown):
        def forward(self, x):
            y = self.a(x)
            return self.b(y * 2 if y.sum() > 0 else y)

    class Outside(Unknown):
        def forward(self, x):
            return self.b(torch.from_numpy(self.a(x).detach().numpy()))

    for kind in (Branching, Outside):
        with pytest.raises(PruningError, match=rf"{kind.__name__} cannot be traced.*need no graph"):
            couple(kind(None), torch.randn(2, 4))
    with pytest.raises(PruningError, match="needs example_inputs"):
        ps.prune(Unknown(torch.relu), sparsity=0.5, granularity="channel")


def test_inputs_that_export_refuses_are_followed_by_fx():
    class Scale:
        factor = 2.0

    class Odd(Unknown):
        def forward(self, x, scale):
            return self.b(torch.relu(self.a(x)) * scale.factor)

    coupling = couple(Odd(None), (torch.randn(2, 4), Scale()))
    assert coupling.trace.how == "fx"
    assert [f.name for f in coupling.families] == ["a.weight"]


def test_tracing_leaves_the_model_as_it_was():
    model, inputs = ZOO["encoder"]()
    model.train()
    model.body.layers[0].eval()
    modes, state = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    before, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        couple(model, inputs)
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(before, torch.get_rng_state())
    assert fast == torch.backends.mha.get_fastpath_enabled()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_writes_into_views_are_followed():
    class Written(Unknown):
        def forward(self, x):
            y = self.a(x)
            y.view(-1, 2, 2).mul_(2)
            y[:, 1] = 0
            return self.b(F.relu(y, inplace=True))

    model = Written(None).double()
    coupling = couple(model, torch.randn(2, 4).double())
    assert faults(coupling, model, (torch.randn(2, 4).double(),), 2) == []
    assert sorted(f.pieces for f in coupling.families) == [1, 3], "the overwritten channel feeds nothing"


MOVES = {
    "unfold": lambda y: F.unfold(y.view(2, 4, 3, 3), 2).mean(2)[:, :4],
    "fold out": lambda y: F.unfold(y.view(2, 4, 3, 3), 3)[..., 0],
    "channel shuffle": lambda y: torch.channel_shuffle(y.view(2, 4, 3, 3), 2).flatten(1),
    "pixel unshuffle": lambda y: F.pixel_unshuffle(y.view(2, 9, 2, 2), 2).flatten(1),
    "gather": lambda y: y.view(2, 4, 9).gather(2, torch.zeros(2, 3, 2, dtype=torch.long)).flatten(1),
    "index": lambda y: y.view(2, 4, 9)[:, :, torch.tensor([0, 3])].flatten(1),
    "roll": lambda y: y.roll(3, 1),
    "repeat": lambda y: y.repeat(1, 2).repeat_interleave(2, 1),
    "stack": lambda y: torch.stack([y, y.flip(1)], 2).flatten(1),
    "diagonal": lambda y: y.view(2, 6, 6).diagonal(dim1=1, dim2=2),
    "movedim": lambda y: y.view(2, 4, 3, 3).movedim(1, -1).reshape(2, -1),
    "stack of parts": lambda y: torch.cat([y[:, :1], y[:, 5:], torch.zeros(2, 2)], 1),
    "padding": lambda y: F.pad(y, (1, 2)),
    "outer product": lambda y: torch.einsum("bi,bj->bij", y[:, :4], y[:, 4:8]).flatten(1),
    "where": lambda y: torch.where(y > 0, y, torch.zeros(())),
    "clamp": lambda y: (y.clamp(-1, 1) * 2 + 0.5).exp(),
    "normalize": lambda y: F.normalize(y, dim=1),
    "group norm": lambda y: F.group_norm(y.view(2, 4, 9), 2).flatten(1),
    "maximum": lambda y: torch.maximum(y, y.flip(1)),
    "select": lambda y: y[:, 3:4] * y,
    "cumulative": lambda y: y.view(2, 4, 9).cumsum(2).flatten(1),
}


@pytest.mark.parametrize("move", MOVES)
def test_ways_of_moving_values(move):
    """Between two layers: what the engine lets go is right, and it lets something go or says why not."""

    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(5, 36), nn.LazyLinear(3)

        def forward(self, x):
            return self.out(MOVES[move](self.a(x)))

    torch.manual_seed(0)
    model, x = Moved(), torch.randn(2, 5)
    model(x)
    model, x = randomised(model).double(), x.double()
    coupling = couple(model, (x,))
    assert faults(coupling, model, (x,), 2) == []
    full, cut = copy.deepcopy(model), copy.deepcopy(model)
    remove(full, coupling.families, 2)
    remove(cut, [f for f in coupling.families if not f.mixed], 2, only="consumer")
    remove(cut, [f for f in coupling.families if f.mixed], 2)
    assert torch.allclose(full(x), cut(x), rtol=0, atol=1e-10)
    assert coupling.trace.how == "export"
    frozen = {n: why for n, _, why in coupling.report() if why and n.startswith("a.weight")}
    assert bool(frozen) == (move == "select"), frozen


def test_branches_are_those_that_the_stream_goes_round():
    model = randomised(nn.Sequential(nn.Linear(6, 16), Block(16, Fused(16, 2, False), mlp=Gated(16, 12)), nn.Linear(16, 3))).double()
    x = torch.randn(2, 5, 6).double()
    found = branches(couple(model, x))
    attention = {f"1.{part}.{kind}" for part in ("attention.proj", "attention.qkv", "norm1") for kind in ("weight", "bias")}
    mlp = {"1.mlp.down.weight", "1.mlp.gate.weight", "1.mlp.up.weight", "1.norm2.bias", "1.norm2.weight"}
    assert [set(b.parameters) for b in found] == [attention, mlp]
    parameters = dict(model.named_parameters())
    for name in (n for b in found for n in b.parameters):
        parameters[name].data.zero_()
    assert torch.allclose(model(x), model[2](model[0](x)), rtol=0, atol=1e-12)


HUGGING = ("gpt2", "llama", "bert", "vit")


def hugging(name: str):
    transformers = pytest.importorskip("transformers", reason="Hugging Face networks need the extra: pip install 'prunescope[hf]'")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
    special = {"bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    tokens = (torch.randint(0, 40, (2, 6)),)
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=4, **special)
        return transformers.GPT2LMHeadModel(config), tokens
    if name == "llama":
        config = transformers.LlamaConfig(**sizes, **special, num_key_value_heads=2, max_position_embeddings=32)
        return transformers.LlamaForCausalLM(config), tokens
    if name == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, max_position_embeddings=32)), tokens
    config = transformers.ViTConfig(**{k: v for k, v in sizes.items() if k != "vocab_size"}, image_size=8, patch_size=4)
    return transformers.ViTForImageClassification(config), (torch.randn(2, 3, 8, 8),)


@pytest.mark.parametrize("name", HUGGING)
def test_networks_of_hugging_face(name):
    model, inputs = hugging(name)
    model = randomised(model).double()
    inputs = tuple(i.double() if i.is_floating_point() else i for i in inputs)
    coupling = couple(model, inputs)
    assert sum(f.heads for f in coupling.families) == 2
    assert len(branches(coupling)) == 4
    assert faults(coupling, model, inputs, 2) == []
    for granularity in ("head", "mlp-unit", "channel"):
        fresh = copy.deepcopy(model)
        masks = ps.prune(fresh, sparsity=0.5, granularity=granularity, example_inputs=inputs)
        named = [f for f in coupling.families if granularity == "channel" or f.heads == (granularity == "head")]
        counts = [removed_pieces(f, masks) for f in named if f.tensors("producer")[0] in masks or granularity == "channel"]
        assert counts, granularity
        assert all(gone == round(0.5 * pieces) for gone, pieces in counts)
        assert bool(torch.isfinite(fresh(*inputs).logits).all())
    assert ps.prune(model, sparsity=0.5, granularity="layer", example_inputs=inputs)


def removed_pieces(family, masks) -> tuple[int, int]:
    """(removed, all) pieces of a family, which must agree in all its tensors."""
    gone = [~masks[p.tensor].movedim(p.dim, 0)[p.index].flatten(1).any(1) for p in family.parts if p.parameter and p.tensor in masks]
    gone = [g for g in gone if bool(g.any())]
    assert all(torch.equal(g, gone[0]) for g in gone)
    return int(gone[0].sum()), family.pieces
