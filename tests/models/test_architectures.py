"""The architectures: parameter counts of the papers, what they promise beyond the contract, and sizes that do not fit."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.models import build, initialise
from prunescope.registry import models
from prunescope.types import ConfigError, MissingExtraError


def made(name: str, shape: tuple[int, ...], classes: int = 10, **options: Any) -> nn.Module:
    return build(name, input_shape=shape, classes=classes, seed=0, options=options)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "options", "parameters"),
    [
        ("lenet-300-100", (1, 28, 28), 10, {}, 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        ("lenet-5", (1, 28, 28), 10, {}, 61_706),
        ("resnet18", (3, 224, 224), 1000, {}, 11_689_512),
        ("resnet50", (3, 224, 224), 1000, {}, 25_557_032),
        ("resnet", (3, 32, 32), 10, {"depth": 20}, 272_474),
        ("lstm", (8, 5), 3, {"hidden": 7}, 4 * 7 * (5 + 7 + 2) + 7 * 3 + 3),
        ("gru", (8, 5), 3, {"hidden": 7, "bidirectional": True}, 2 * 3 * 7 * (5 + 7 + 2) + 14 * 3 + 3),
        ("conv1d", (8, 5), 3, {"channels": [4]}, 4 * 5 * 3 + 4 + 4 * 3 + 3),
    ],
)
def test_parameter_counts(name: str, shape: tuple[int, ...], classes: int, options: dict[str, Any], parameters: int) -> None:
    """Those of torchvision's ResNets and of the papers' LeNets and ResNet-20 (with projections for shortcuts), the others by hand."""
    assert count(made(name, shape, classes, **options)) == parameters


@pytest.mark.parametrize(
    ("name", "shape", "paths"),
    [
        ("lenet-5", (1, 28, 28), ["conv1", "conv2", "fc1", "fc2", "output"]),
        ("vgg", (1, 8, 8), ["conv1", "bn1", "conv8", "output"]),
        ("resnet", (1, 8, 8), ["conv1", "layer1.0.conv1", "layer2.0.downsample.0", "layer3.2.bn2", "output"]),
        ("densenet", (1, 8, 8), ["conv1", "block1.layer2.conv2", "transition1.conv", "output"]),
        ("mobilenet", (1, 8, 8), ["conv1", "stage1.0.expand", "stage2.1.depthwise", "stage3.0.project", "output"]),
        ("unet", (1, 8, 8), ["down1.conv1", "middle.conv2", "grow1", "up1.conv1", "pixels"]),
        ("lstm", (8, 8), ["rnn1", "output"]),
        ("transformer", (8, 8), ["embed", "position", "block1.attention.out_proj", "block2.fc2", "output"]),
        ("causal-transformer", (8, 8), ["block1.attention.q_proj", "block1.attention.out_proj", "block2.fc1", "output"]),
        ("conv3d", (1, 8, 8, 8), ["conv1", "conv2", "output"]),
    ],
)
def test_modules_have_names_that_read_well(name: str, shape: tuple[int, ...], paths: list[str]) -> None:
    owners = {n for n, m in made(name, shape).named_modules() if list(m.parameters(recurse=False))}
    assert set(paths) <= owners


def test_a_causal_step_does_not_see_what_follows() -> None:
    model = made("causal-transformer", (8, 4)).eval()
    seen: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    x = torch.randn(3, 8, 4)
    changed = x.clone()
    changed[:, 5:] += 1.0
    model(x), model(changed)
    torch.testing.assert_close(seen[0][:, :5], seen[1][:, :5])
    assert (seen[0][:, 5:] - seen[1][:, 5:]).abs().min() > 0
    encoder = made("transformer", (8, 4)).eval()
    seen.clear()
    encoder.norm.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    encoder(x), encoder(changed)
    assert (seen[0][:, 0] - seen[1][:, 0]).abs().max() > 1e-4


def test_attention_is_softmax_of_scaled_products() -> None:
    attention = made("causal-transformer", (5, 4), width=8, heads=4, key_value_heads=2).block1.attention
    assert attention.k_proj.weight.shape == (4, 8)
    x = torch.randn(2, 5, 8)
    q, k, v = (layer(x).unflatten(-1, (-1, 2)) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
    mixed = torch.zeros(2, 5, 4, 2)
    for head in range(4):
        for step in range(5):
            scores = (q[:, step, head, None] * k[:, : step + 1, head // 2]).sum(-1) / 2**0.5
            mixed[:, step, head] = (scores.softmax(-1)[..., None] * v[:, : step + 1, head // 2]).sum(1)
    torch.testing.assert_close(attention(x), attention.out_proj(mixed.flatten(2)))


def test_tokens_and_a_head_tied_to_their_embedding() -> None:
    model = made("causal-transformer", (6,), classes=12, tokens=12, tied=True)
    assert model.output.weight is model.embed.weight
    assert len([n for n, _ in model.named_parameters() if n.endswith("embed.weight") or n.startswith("output")]) == 1
    x = torch.arange(12.0).reshape(2, 6)
    assert model(x).shape == (2, 12)
    model(x).sum().backward()
    assert model.embed.weight.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match="tied = true needs as many tokens as classes"):
        made("causal-transformer", (6,), classes=3, tokens=12, tied=True)
    with pytest.raises(ConfigError, match=r"with tokens = 12 expected \(steps,\)"):
        made("transformer", (6, 2), tokens=12)


def test_a_unet_takes_odd_sizes_and_segments() -> None:
    assert made("unet", (1, 9, 11))(torch.randn(2, 1, 9, 11)).shape == (2, 10)
    assert made("unet", (1, 9, 11), pooled=False)(torch.randn(2, 1, 9, 11)).shape == (2, 10, 9, 11)


def test_bottlenecks_and_the_large_stem() -> None:
    model = made("resnet", (3, 64, 64), depth=50, width=4)
    assert model.conv1.kernel_size == (7, 7)
    assert model.layer1[0].conv3.weight.shape == (16, 4, 1, 1)
    assert made("resnet", (3, 32, 32), depth=50, width=4).conv1.kernel_size == (3, 3)
    assert made("resnet", (1, 8, 8), depth=11, block="bottleneck", width=4)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_depthwise_convolutions_see_one_map_each() -> None:
    for block in ("inverted", "separable"):
        model = made("mobilenet", (1, 8, 8), block=block)
        depthwise = [m for n, m in model.named_modules() if n.endswith("depthwise")]
        assert len(depthwise) == 6
        assert all(m.groups == m.in_channels == m.out_channels for m in depthwise)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("lstm", (1, 8, 8), {}, r'data\.view = "rows"'),
        ("transformer", (8, 8), {"heads": 5}, "width = 32 by heads = 5 does not divide"),
        ("causal-transformer", (8, 8), {"key_value_heads": 3}, "heads = 4 by key_value_heads = 3 does not divide"),
        ("resnet", (1, 8, 8), {"depth": 19}, r"depth = 19: expected one of 18, 34, 50, 101, 152, or 6 n \+ 2"),
        ("vgg", (1, 8, 8), {"depth": 12}, "depth = 12: expected one of 11, 13, 16, 19"),
        ("densenet", (1, 2, 2), {}, "use fewer blocks"),
        ("densenet", (1, 8, 8), {"compression": 0.0}, "compression = 0.0"),
        ("unet", (1, 3, 8), {}, "depth = 2 halves images of 3 x 8"),
        ("lenet-5", (1, 8, 8), {}, "expected at least 12 x 12"),
        ("lenet-5", (64,), {}, r"expected \(channels, height, width\)"),
        ("conv1d", (1, 8, 8), {}, 'set data.view = "rows"'),
        ("conv3d", (1, 8, 8), {}, r"expected \(channels, depth, height, width\)"),
        ("conv1d", (8, 2), {"kernel": 2}, "an odd kernel"),
    ],
)
def test_what_cannot_be_built(name: str, shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(name, shape, **options)


def test_recurrent_and_packed_weights_follow_the_scheme_gate_by_gate() -> None:
    lstm = nn.LSTM(40, 50, 2)
    initialise(lstm, "glorot-uniform", torch.Generator().manual_seed(0))
    for gate in lstm.weight_ih_l0.split(50):
        assert float(gate.detach().abs().max()) == pytest.approx((6 / 90) ** 0.5, rel=0.01)
    for gate in lstm.weight_hh_l1.split(50):
        torch.testing.assert_close(gate @ gate.T, torch.eye(50), atol=1e-5, rtol=0)
    assert lstm.bias_ih_l0.tolist() == [0.0] * 50 + [1.0] * 50 + [0.0] * 100, "input, forget, cell, output: the forget gate starts open"
    assert not lstm.bias_hh_l0.any()
    attention = nn.MultiheadAttention(60, 2)
    initialise(attention, "glorot-uniform", torch.Generator().manual_seed(0))
    for projection in attention.in_proj_weight.chunk(3):
        assert float(projection.detach().abs().max()) == pytest.approx((6 / 120) ** 0.5, rel=0.01)
    grown = nn.ConvTranspose2d(30, 20, 2)
    initialise(grown, "he-uniform", torch.Generator().manual_seed(0))
    assert float(grown.weight.detach().abs().max()) == pytest.approx((6 / (30 * 4)) ** 0.5, rel=0.01), "its inputs are dim 0"


@pytest.mark.parametrize(("name", "extra"), [("timm:resnet18", "vision"), ("hf:gpt2", "hf")])
def test_a_package_that_is_missing_is_one_sentence(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"^{name} needs .*: pip install 'prunescope\[{extra}\]'$") as caught:
        made(name, (3, 32, 32))
    assert "\n" not in str(caught.value)


def test_a_prefix_stands_for_the_names_of_another_package() -> None:
    entry = models.get("hf:some/folder")
    assert entry.name == "hf:some/folder"
    assert entry.traits["reference"] == "some/folder"
    assert not entry.traits.get("own")
    assert models.get("torch.nn:Linear").traits["own"]


@pytest.mark.slow
def test_a_hugging_face_folder_brings_its_own_weights(tmp_path: Any) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    options = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24}
    first = made("hf:llama", (8, 8), **options, vocab_size=20)
    assert first.plane_layers == ["backbone.layers.0@tokens", "backbone.layers.1@tokens"]
    first.backbone.save_pretrained(tmp_path)
    again = build(f"hf:{tmp_path}", input_shape=(8, 8), classes=10, seed=1)
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(again.backbone.state_dict()[name], value)
    assert not torch.equal(first.output.weight, again.output.weight), "the head is drawn from the seed"
    with pytest.raises(ConfigError, match="expected a model type of transformers"):
        made("hf:no-such-type", (8, 8))
    with pytest.raises(ConfigError, match="hidden_size"):
        made("hf:llama", (8, 8), hidden_size="many")
