"""Exported files compute what the network does, in a process that has never seen it, and refuse what would not."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

import prunescope as ps
from prunescope import models
from prunescope.export import read_weights
from prunescope.quantization import quantize, restore
from prunescope.types import ConfigError, ExportError, MissingExtraError, StoreError


def net() -> nn.Module:
    return models.build("cnn", input_shape=(1, 8, 8), classes=3, seed=0, options={"channels": [4, 6], "dense": 16})


@pytest.fixture
def pruned():
    model, x = net(), torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    return model, ps.prune(model, sparsity=0.5), x


def in_a_fresh_process(code: str, *arguments: object) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def close(got: list[float], model: nn.Module, x: torch.Tensor) -> bool:
    wanted = model.eval()(x).detach().flatten()
    return torch.allclose(torch.tensor(got), wanted, rtol=1e-5, atol=1e-5)


def test_safetensors_with_masks_and_description(tmp_path, pruned):
    model, masks, x = pruned
    about = {"hash": "abc", "quality": [{"when": "final", "split": "test", "metric": "accuracy", "value": 0.5, "unit": "fraction", "n": 8}]}
    made = ps.export_model(model.train(), tmp_path / "net.safetensors", example_inputs=x, masks=masks, about=about)
    assert model.training, "the mode is put back"
    tensors, description = read_weights(made.path)
    assert description["masks"]["fc1.weight"] == {"kept": int(masks["fc1.weight"].sum()), "of": masks["fc1.weight"].numel()}
    assert description == json.loads((tmp_path / "net.safetensors.json").read_text())
    assert ps.Masks.load(tmp_path / "net.safetensors.masks").keys() == masks.keys()
    again = net()
    again.load_state_dict(tensors)
    assert torch.equal(again.eval()(x), model.eval()(x))
    card = made.card.read_text()
    assert "| accuracy | 0.5000 |" in card
    assert "abc" in card
    assert "no smaller for it" in card
    assert f"| `fc1.weight` | {' x '.join(map(str, again.fc1.weight.shape))} | float32 | 50.0 % | 50.0 % |" in card


def test_pt2_in_a_fresh_process(tmp_path, pruned):
    model, masks, x = pruned
    made = ps.export_model(model, tmp_path / "net.pt2", example_inputs=x, masks=masks, dynamic_batch=True)
    safetensors.torch.save_file({"x": x[:3]}, tmp_path / "x.safetensors")
    code = "import sys, json, torch, safetensors.torch as s; x = s.load_file(sys.argv[2])['x']; "
    code += "print(json.dumps(torch.export.load(sys.argv[1]).module()(x).flatten().tolist()))"
    assert close(in_a_fresh_process(code, made.path, tmp_path / "x.safetensors"), model, x[:3])
    assert made.agreement.batches == (2, 7)


def test_onnx_in_a_fresh_process(tmp_path, pruned):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, masks, x = pruned
    made = ps.export_model(model, tmp_path / "net.onnx", example_inputs=x, masks=masks, dynamic_batch=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.md"], "one file, weights within"
    safetensors.torch.save_file({"x": x[:3]}, tmp_path / "x.safetensors")
    code = "import sys, json, onnxruntime as o, safetensors.numpy as s; x = s.load_file(sys.argv[2])['x']; "
    code += "n = o.InferenceSession(sys.argv[1]); assert 'torch' not in sys.modules; "
    code += "print(json.dumps(n.run(None, {n.get_inputs()[0].name: x})[0].ravel().tolist()))"
    assert close(in_a_fresh_process(code, made.path, tmp_path / "x.safetensors"), model, x[:3])
    assert made.agreement.difference < 1e-5
    assert "ONNX Runtime" in made.card.read_text()


def test_int8_weights_come_back(tmp_path, pruned):
    pytest.importorskip("torchao")
    model, _, x = pruned
    small, _ = quantize(model, activations="static", calibration=[x])
    made = ps.export_model(small, tmp_path / "net.safetensors", example_inputs=x)
    tensors, _ = read_weights(made.path)
    assert tensors["fc1.weight"].dtype == torch.int8
    assert torch.equal(restore(net(), tensors, activations="static")(x), small(x))
    with pytest.raises(StoreError, match="not of a quantised"):
        restore(nn.Linear(2, 2), tensors, activations="static")
    with pytest.raises(ExportError, match="no ONNX form"):
        ps.export_model(small, tmp_path / "net.onnx", example_inputs=x)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) + torch.rand_like(x)


class Branching(Noisy):
    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_disagreement_and_untraceable_networks_leave_nothing(tmp_path):
    x = torch.ones(2, 4)
    with pytest.raises(ExportError, match="disagrees with the network by"):
        ps.export_model(Noisy(), tmp_path / "net.pt2", example_inputs=x)
    with pytest.raises(ExportError, match=r"Branching cannot be written as pt2: .*data-dependent"):
        ps.export_model(Branching(), tmp_path / "net.pt2", example_inputs=x)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_named(tmp_path, pruned, monkeypatch):
    model, masks, x = pruned
    with pytest.raises(ConfigError, match="expected a tensor or a tuple"):
        ps.export_model(model, tmp_path / "net.pt2", example_inputs={"x": x})
    with pytest.raises(ConfigError, match="unknown format 'bin'"):
        ps.export_model(model, tmp_path / "net.bin", example_inputs=x)
    with torch.no_grad():
        model.fc1.weight.fill_(1.0)
    with pytest.raises(ConfigError, match="behind its mask that are not zero"):
        ps.export_model(model, tmp_path / "net.pt2", example_inputs=x, masks=masks)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"prunescope\[export\]"):
        ps.export_model(model, tmp_path / "net.onnx", example_inputs=x)
    assert not list(tmp_path.iterdir())
