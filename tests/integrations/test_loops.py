"""Callbacks in other people's loops: the examples train and prune, an interrupted training goes on as if it had not been."""

import builtins
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.integrations.huggingface import FILE, TrainerPruning, read_state
from prunescope.integrations.lightning import LightningPruning
from prunescope.integrations.looping import innermost
from prunescope.types import ConfigError, PruningError, StoreError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def data():
    x = torch.randn(128, 20, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2))


@pytest.mark.slow
def test_lightning_example_trains_and_prunes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning", reason="needs lightning: pip install 'prunescope[lightning]'")
    monkeypatch.chdir(tmp_path)
    scope = runpy.run_path(str(EXAMPLES / "lightning_trainer.py"))
    assert scope["pruning"].masks.sparsity() == pytest.approx(0.9, abs=1e-3)
    assert float((scope["module"].net[0].weight == 0).float().mean()) > 0.8
    assert scope["accuracy"] > 0.8
    assert scope["report"].after < scope["report"].before
    assert float(scope["trainer"].callback_metrics["sparsity"]) == pytest.approx(0.9, abs=1e-3)
    epochs = scope["plane"].to_frame()["epoch"].unique().tolist()
    assert epochs == list(range(13))
    assert set(scope["module"].state_dict()) == {f"net.{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")}
    _lightning_goes_on(scope, tmp_path)


def _lightning_goes_on(scope, folder):
    """A training that is cut in two and one in one piece end in the same weights; the checkpoint is read without running code."""
    lightning, digits = scope["lightning"], scope["Digits"]

    def trained(epochs, checkpoint=None):
        torch.manual_seed(1)
        module = digits()
        plane = ps.InformationPlane(module, scope["x"][:50], scope["y"][:50])
        pruning = LightningPruning(sparsity=0.8, end=30, every=5, plane=plane)
        loader = torch.utils.data.DataLoader(scope["loader"].dataset, batch_size=150)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[pruning], **quiet)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        return trainer, module, pruning

    trained(2)[0].save_checkpoint(folder / "half.ckpt")
    _, whole, one = trained(4)
    _, parts, two = trained(4, folder / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert one.pruner.steps == two.pruner.steps == 40
    assert two.plane.to_frame().equals(one.plane.to_frame())
    kept = torch.load(folder / "half.ckpt", weights_only=True)["callbacks"][one.state_key]
    assert kept["pruner"]["steps"] == 20


@pytest.mark.slow
def test_hugging_face_example_trains_and_prunes(tmp_path, monkeypatch):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'prunescope[hf]'")
    monkeypatch.chdir(tmp_path)
    scope = runpy.run_path(str(EXAMPLES / "huggingface_trainer.py"))
    assert scope["pruning"].masks.sparsity() == pytest.approx(0.7, abs=1e-3)
    assert scope["accuracy"] > 0.9
    assert scope["plane"].to_frame()["epoch"].nunique() == 11
    logged = [e["sparsity"] for e in scope["trainer"].state.log_history if "loss" in e]
    assert logged == sorted(logged)
    assert logged[-1] == pytest.approx(0.7, abs=1e-3)
    last = tmp_path / "bert" / "checkpoint-160"
    assert json.loads((last / "trainer_state.json").read_text())["log_history"][-2]["sparsity"] == logged[-1]
    loaded = transformers.BertForSequenceClassification.from_pretrained(last)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(loaded.get_parameter(name) != 0, scope["pruning"].masks[name] & (scope["model"].get_parameter(name) != 0))
    again = transformers.BertForSequenceClassification(scope["config"])
    like = {"layers": scope["layers"], "estimators": scope["plane"].estimators}
    plane = ps.InformationPlane(again, scope["ids"][:512], scope["labels"][:512], **like)
    resumed = TrainerPruning(sparsity=0.7, plane=plane, **scope["pruning"].pruning)
    trainer = transformers.Trainer(again, scope["arguments"], train_dataset=scope["rows"][:512], callbacks=[resumed])
    trainer.train(resume_from_checkpoint="bert/checkpoint-144")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), scope["model"].parameters(), strict=True))
    assert plane.to_frame().equals(scope["plane"].to_frame())


def test_neither_package_is_imported(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "transformers", "accelerate"):
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in ("lightning", "huggingface", "looping"):
        monkeypatch.delitem(sys.modules, f"prunescope.integrations.{name}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    fresh = __import__("prunescope.integrations.lightning", fromlist=["LightningPruning"])
    other = __import__("prunescope.integrations.huggingface", fromlist=["TrainerPruning"])
    assert fresh.LightningPruning(sparsity=0.5).reached() == other.TrainerPruning(sparsity=0.5).reached() == 0.0


def loop(callback, model, data, folder, *, steps=8, state=None):
    """What the Trainer does of events, without transformers: for machines where it is not there, and for masks that are held."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    args = SimpleNamespace(output_dir=str(folder), resume_from_checkpoint=None)
    state = state or SimpleNamespace(global_step=0, max_steps=steps, epoch=0.0, log_history=[], is_world_process_zero=True)
    callback.on_train_begin(args, state, None, model=model, optimizer=SimpleNamespace(optimizer=optimizer))
    for _ in range(steps - state.global_step):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
        state.global_step += 1
        assert callback.on_step_end(args, state, None) is None
    (folder / f"checkpoint-{state.global_step}").mkdir()
    callback.on_save(args, state, None)
    callback.on_train_end(args, state, None)
    return args, state


def test_masks_made_before_are_held_and_written(tmp_path, data):
    model = net()
    masks = ps.prune(model, sparsity=0.5)
    loop(TrainerPruning(masks=masks), model, data, tmp_path)
    assert (model[0].weight[~masks["0.weight"]] == 0).all()
    kept = read_state(tmp_path / "checkpoint-8")
    assert torch.equal(kept["masks"]["0.weight"], masks["0.weight"])
    other = net()
    callback = TrainerPruning(masks=ps.Masks({"0.weight": torch.ones(16, 20, dtype=torch.bool)}), resume=tmp_path / "checkpoint-8")
    state = SimpleNamespace(global_step=8, max_steps=10, epoch=1.0, log_history=[], is_world_process_zero=True)
    loop(callback, other, data, tmp_path, steps=10, state=state)
    assert torch.equal(callback.masks["0.weight"], masks["0.weight"])
    assert float((other[0].weight == 0).float().mean()) == 0.5


def test_schedule_fits_the_length_of_the_training(tmp_path, data):
    model, callback = net(), TrainerPruning(sparsity=0.5)
    loop(callback, model, data, tmp_path, steps=80)
    assert (callback.pruner.end, callback.pruner.every) == (60, 3)
    assert callback.reached() == pytest.approx(0.5, abs=1e-2)


def test_what_does_not_fit_is_said(tmp_path, data):
    with pytest.raises(ConfigError, match="got neither"):
        TrainerPruning()
    with pytest.raises(ConfigError, match="the loop decides"):
        LightningPruning(sparsity=0.5, optimizer=None)
    with pytest.raises(ConfigError, match="only sparsity"):
        LightningPruning(masks=ps.Masks({}), criterion="magnitude")
    with pytest.raises(ConfigError, match="plane_every 0"):
        LightningPruning(sparsity=0.5, plane_every=0)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = TrainerPruning(sparsity=0.5).nothing_of_the_kind
    with pytest.raises(ConfigError, match="steps can be counted"):
        innermost(object())
    state = SimpleNamespace(global_step=3, max_steps=8, epoch=1.0, log_history=[], is_world_process_zero=True)
    with pytest.raises(StoreError, match=r"checkpoint-3.*resume=FOLDER"):
        loop(TrainerPruning(sparsity=0.5), net(), data, tmp_path, state=state)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / FILE).write_bytes(b"not safetensors")
    with pytest.raises(StoreError, match="cannot be read"):
        loop(TrainerPruning(sparsity=0.5), net(), data, tmp_path, state=state)
    with pytest.raises(PruningError, match="holds no pruner"):
        TrainerPruning(sparsity=0.5).restore({"masks": {}})
