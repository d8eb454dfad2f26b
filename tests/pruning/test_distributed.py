"""Two processes: DistributedDataParallel with the same masks on both, FullyShardedDataParallel with masks made before sharding."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import nn

import prunescope as ps
from prunescope.types import PruningError

OPTIONS = {
    "gradual": {"end": 8, "every": 2},
    "soft": {"end": 8, "every": 2, "soft": True},
    "rigl": {"dynamic": "rigl", "end": 20, "every": 2},
    "set": {"dynamic": "set", "every": 2},
    "own data": {"end": 8, "every": 2, "criterion": "test_distributed:own_data"},
}


def own_data(weight: torch.Tensor) -> torch.Tensor:
    """Scores that differ between the processes, as those from data of their own do."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(torch.distributed.get_rank()))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, count: int = 10) -> None:
    generator = torch.Generator().manual_seed(rank)
    for _ in range(count):
        optimizer.zero_grad()
        x, y = torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({"replicated": replicated(rank), "sharded": sharded(rank)}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def replicated(rank: int) -> dict:
    found = {}
    for name, options in OPTIONS.items():
        model = net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped = torch.compile(wrapped, backend="eager") if name == "gradual" else wrapped
        optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01)
        pruner = ps.Pruner(wrapped, optimizer, sparsity=0.5, **options)
        train(wrapped, optimizer, rank)
        found[name] = {"masks": dict(pruner.masks), "weights": {n: p.detach() for n, p in model.named_parameters()}}
    return found


def sharded(rank: int) -> dict:
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model = net()
    masks = ps.prune(model, sparsity=0.5)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    masks.bind(model).attach(optimizer)
    train(model, optimizer, rank)
    refused = ""
    try:
        ps.Pruner(model, optimizer, sparsity=0.5)
    except PruningError as error:
        refused = str(error)
    weights = {n: p.full_tensor().detach() for n, p in model.named_parameters()}
    return {"masks": dict(masks), "weights": weights, "refused": refused}


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(ps.__file__).parent.parent}")
        torch.multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_both_processes_have_the_same_masks_and_weights(processes):
    one, two = (p["replicated"] for p in processes)
    for name in OPTIONS:
        assert set(one[name]["masks"]) == set(two[name]["masks"]) == {"0.weight", "3.weight"}
        assert sum(int((~mask).sum()) for mask in one[name]["masks"].values()) == (96 + 128) // 2  # rigl shares out by shape
        for part in ("masks", "weights"):
            assert all(torch.equal(v, two[name][part][n]) for n, v in one[name][part].items()), name
        for parameter, mask in one[name]["masks"].items():
            assert (one[name]["weights"][parameter][~mask] == 0).all()


@pytest.mark.slow
def test_masks_made_before_sharding_hold_on_the_shards(processes):
    one, two = (p["sharded"] for p in processes)
    for name, mask in one["masks"].items():
        assert torch.equal(mask, two["masks"][name])
        assert (one["weights"][name][~mask] == 0).all()
        assert (one["weights"][name][mask] != 0).all()
    assert "is sharded: prune before fully_shard" in one["refused"]
