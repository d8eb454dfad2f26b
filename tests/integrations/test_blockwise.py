"""Checkpoints pruned block by block: equal to pruning in memory, loadable by transformers, resumable, and refused by name where unfit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunescope.integrations import blockwise
from prunescope.integrations.blockwise import Settings, calibration_from, prune_checkpoint
from prunescope.types import ConfigError, DataError

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'prunescope[hf]'")


def llama() -> torch.nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=101, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2() -> torch.nn.Module:
    config = transformers.GPT2Config(vocab_size=101, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return transformers.GPT2LMHeadModel(config)


MODELS = {"llama": llama, "gpt2": gpt2}
IDS = torch.randint(0, 101, (12, 16), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=MODELS)
def model(request) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def saved(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="20KB")
    return folder


def blocks_of(model: torch.nn.Module) -> torch.nn.ModuleList:
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def matrices(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return {n: m.weight.detach() for n, m in blocks_of(model).named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_loads_with_transformers_and_every_matrix_has_its_zeros(model, criterion, tmp_path):
    source = saved(model, tmp_path / "dense")
    assert len(list(source.glob("*.safetensors"))) > 2, "a sharded source"
    data = None if criterion == "magnitude" else {"input_ids": IDS}
    done = prune_checkpoint(source, tmp_path / "sparse", Settings(criterion, 0.5, batch=5), calibration=data)
    loaded = type(model).from_pretrained(tmp_path / "sparse")
    for name, weight in matrices(loaded).items():
        assert int((weight == 0).sum()) == round(0.5 * weight.numel()), name
    assert done.sparsity == pytest.approx(0.5)
    untouched = {n: p for n, p in model.state_dict().items() if n not in done.counts}
    assert all(torch.equal(loaded.state_dict()[n], p) for n, p in untouched.items())
    assert torch.isfinite(loaded(IDS).logits).all()


def test_sparsegpt_keeps_the_outputs_better_than_magnitude(tmp_path):
    torch.manual_seed(0)
    model = llama().eval()
    for weight in matrices(model).values():
        weight.mul_(6)  # random blocks this small hardly change the residual stream otherwise
    source = saved(model, tmp_path / "dense")
    with torch.no_grad():
        wanted = model(IDS).logits
        errors = {}
        for criterion in ("magnitude", "sparsegpt"):
            data = None if criterion == "magnitude" else {"input_ids": IDS}
            prune_checkpoint(source, tmp_path / criterion, Settings(criterion, 0.5), calibration=data)
            errors[criterion] = float((type(model).from_pretrained(tmp_path / criterion)(IDS).logits - wanted).square().mean())
    assert errors["sparsegpt"] < 0.8 * errors["magnitude"]


def test_two_of_four(model, tmp_path):
    prune_checkpoint(saved(model, tmp_path / "a"), tmp_path / "b", Settings("wanda", granularity="2:4"), calibration={"input_ids": IDS})
    loaded = type(model).from_pretrained(tmp_path / "b")
    for module in blocks_of(loaded).modules():
        if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D):
            weight = module.weight.detach() if isinstance(module, torch.nn.Linear) else module.weight.detach().T
            assert ((weight.reshape(-1, 4) != 0).sum(1) == 2).all()


def test_a_block_sees_what_the_pruned_ones_before_it_give(model, tmp_path):
    """The same as in memory: prune block 0 on its inputs, run, prune block 1 on what comes out."""
    import prunescope as ps

    prune_checkpoint(saved(model, tmp_path / "a"), tmp_path / "b", Settings("wanda", 0.6, batch=12), calibration={"input_ids": IDS})
    loaded = type(model).from_pretrained(tmp_path / "b").eval()
    for number, block in enumerate(blocks_of(model)):
        seen = []
        handle = block.register_forward_pre_hook(lambda m, a, k, seen=seen: seen.append((a, k)), with_kwargs=True)
        with torch.no_grad():
            model(IDS, use_cache=False)
        handle.remove()
        args, kwargs = seen[0]
        names = [f"{n}.weight" for n, m in block.named_modules() if isinstance(m, torch.nn.Linear | transformers.pytorch_utils.Conv1D)]
        inputs = {"hidden_states": args[0], **{k: v for k, v in kwargs.items() if v is not None}}
        if len(args) > 2 and args[2] is not None:
            inputs["attention_mask"] = args[2]
        ps.prune(block, sparsity=0.6, criterion="wanda", layers=names, output=True, data=[(inputs, None)])
        for name in names:
            assert torch.equal(block.get_parameter(name), blocks_of(loaded)[number].get_parameter(name)), (number, name)


def test_a_stopped_run_goes_on(model, tmp_path, monkeypatch):
    source = saved(model, tmp_path / "dense")
    settings = Settings("wanda", 0.5)
    prune_checkpoint(source, tmp_path / "whole", settings, calibration={"input_ids": IDS})
    original, calls = blockwise._Work.block, []

    def stopping(self, number):
        if number == 1 and not calls:
            calls.append(number)
            raise KeyboardInterrupt
        original(self, number)

    monkeypatch.setattr(blockwise._Work, "block", stopping)
    with pytest.raises(KeyboardInterrupt):
        prune_checkpoint(source, tmp_path / "again", settings, calibration={"input_ids": IDS})
    with pytest.raises(ConfigError, match="other settings"):
        prune_checkpoint(source, tmp_path / "again", Settings("wanda", 0.7), calibration={"input_ids": IDS})
    done = prune_checkpoint(source, tmp_path / "again", settings, calibration={"input_ids": IDS})
    assert done.resumed == 1
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_refusals(model, tmp_path):
    source = saved(model, tmp_path / "dense")
    with pytest.raises(ConfigError, match="looks at data"):
        prune_checkpoint(source, tmp_path / "o", Settings("wanda", 0.5))
    with pytest.raises(ConfigError, match="only one block is in memory"):
        prune_checkpoint(source, tmp_path / "o", Settings("snip", 0.5), calibration={"input_ids": IDS})
    with pytest.raises(ConfigError, match="own folder"):
        prune_checkpoint(source, source, Settings("magnitude", 0.5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        prune_checkpoint(source, tmp_path / "full", Settings("magnitude", 0.5))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    with pytest.raises(DataError, match=r"config\.json"):
        prune_checkpoint(tmp_path, tmp_path / "o", Settings("magnitude", 0.5))
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../secret.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="lies in"):
        prune_checkpoint(source, tmp_path / "o", Settings("magnitude", 0.5))


def test_calibration_files(tmp_path):
    np.savez(tmp_path / "c.npz", input_ids=IDS.numpy())
    assert torch.equal(calibration_from(tmp_path / "c.npz", tmp_path, samples=5)["input_ids"], IDS[:5])
    (tmp_path / "t.txt").write_text("words")
    with pytest.raises(DataError, match="tokenizer"):
        calibration_from(tmp_path / "t.txt", tmp_path)
    with pytest.raises(DataError, match="no such calibration file"):
        calibration_from(tmp_path / "none.npz", tmp_path)
