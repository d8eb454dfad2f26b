"""Memory before a run: what is there, what a trial needs, and what is made less or refused."""

import sys

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.experiments import engines
from prunescope.experiments.memory import BASE, Need, available, fit, limit_of, needs_of
from prunescope.experiments.planning import plan
from prunescope.measures.quality import EVALUATED_BYTES, EVALUATED_ROWS, batched, rows_at_once
from prunescope.types import ConfigError

MB = 10**6
TINY = {
    "name": "tiny",
    "seeds": 4,
    "data": {"name": "digits", "flatten": True, "classes": [0, 1], "train_size": 100},
    "model": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 1},
    "measure": {"epochs": "none", "histogram_bins": 0},
    "prune": {"when": "never"},
}


def files(root, **texts):
    for name, text in texts.items():
        place = root / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def test_what_is_available_is_the_least_of_kernel_and_control_groups(tmp_path):
    assert available(tmp_path) is None
    files(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert available(tmp_path) == 4000 << 10
    two = {"memory.max": "3000000", "memory.current": "1000000", "memory.stat": "anon 5\ninactive_file 500000\n"}
    files(tmp_path, proc__self__cgroup="0::/jobs/mine\n", **{f"sys/fs/cgroup/jobs/{name}": text for name, text in two.items()})
    assert available(tmp_path) == 2_500_000, "the group above limits too, and its file cache can be had back"
    files(tmp_path, **{"sys/fs/cgroup/jobs/mine/memory.max": "max", "sys/fs/cgroup/jobs/mine/memory.current": "1"})
    assert available(tmp_path) == 2_500_000
    one = {"memory.limit_in_bytes": "2000000", "memory.usage_in_bytes": "1500000"}
    files(tmp_path, **{f"sys/fs/cgroup/memory/{name}": text for name, text in one.items()})
    files(tmp_path, proc__self__cgroup="7:cpu:/x\n4:memory:/not/mounted/here\n0::/\n")
    assert available(tmp_path) == 500_000, "version 1, of a container whose own path is not there"
    files(tmp_path, **{"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert available(tmp_path) == 4000 << 10, "no limit"


def test_sizes_are_read_and_what_is_none_is_named():
    assert limit_of("8 GB") == 8 * 10**9
    assert limit_of("1GiB") == 1 << 30
    assert limit_of(5000) == 5000
    assert limit_of("off") is None
    assert 0 < limit_of("auto") < 1 << 50
    for wrong in ("lots", "-1GB", "0", "8 XB"):
        with pytest.raises(ConfigError, match="expected auto, off or a size"):
            limit_of(wrong)


def needing(shared, each, together=8):
    return [Need({"for the program": shared * MB}, {"weights": each * MB}, together)]


def test_the_stack_shrinks_first_then_the_workers_and_then_it_is_refused():
    need = needing(500, 100)
    assert fit(need, None, jobs=4, stack="auto", trials=32).text is None
    assert fit(need, 8000 * MB, jobs=4, stack="auto", trials=32) == fit(need, None, jobs=4, stack="auto", trials=32)
    less = fit(need, 3200 * MB, jobs=4, stack="auto", trials=32)
    assert (less.jobs, less.stack) == (4, 3)
    assert "at most 3 networks train together" in less.text
    fewer = fit(need, 1300 * MB, jobs=4, stack="auto", trials=32)
    assert (fewer.jobs, fewer.stack) == (2, "off")
    assert "networks train one by one, 2 of 4 workers, to stay within 1.3 GB" in fewer.text
    alone = fit(needing(500, 100, together=1), 1300 * MB, jobs=4, stack="auto", trials=32)
    assert (alone.jobs, alone.stack) == (2, "auto")
    with pytest.raises(ConfigError, match=r"one trial alone needs about 500 MB for the program \+ 100 MB weights = 600 MB, and 550 MB may"):
        fit(need, 550 * MB, jobs=4, stack="auto", trials=32)
    assert fit(need, 1300 * MB, jobs=4, stack="auto", trials=1).jobs == 1


def test_needs_grow_with_what_they_are_made_of():
    def one(**changes):
        found = needs_of(plan({**TINY, "prune": {"when": "trained"}}, changes).trials, None)
        assert len(found) == 1
        return found[0]

    small = one()
    assert BASE < small.total() < BASE + 10 * MB
    wide = one(**{"model.widths": [700, 700]})
    weights = 4 * (64 * 700 + 700 * 700)
    assert 6 * weights < sum(wide.each.values()) < 14 * weights
    adam = one(**{"model.widths": [700, 700], "training.optimizer": "adam"})
    assert sum(adam.each.values()) > sum(wide.each.values()) + 2 * weights
    plane = one(**{"measure.plane": {"estimators": [{"name": "binning", "bins": 4}]}})
    assert plane.shared["information plane"] > small.shared["information plane"] == 0
    assert small.together > 1
    lr = plan({**TINY, "grid": {"training.lr": [0.1, 0.2], "training.batch_size": [8, 16]}}).trials
    assert len(needs_of(lr, None)) == 2, "rates need nothing"


def test_looking_leaves_network_and_generator_as_they_were():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    net = nn.Sequential(nn.Conv2d(1, 2000, 3, padding=1), nn.BatchNorm2d(2000), nn.Dropout(), nn.Flatten(), nn.Linear(2000 * 36, 2))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    before = torch.get_rng_state()
    x = torch.ones(80, 1, 6, 6)
    rows = rows_at_once(net, x)
    assert rows == EVALUATED_BYTES // (2000 * 36 * 4) < EVALUATED_ROWS
    assert net.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())
    assert rows_at_once(nn.Linear(4, 2), torch.ones(80, 4)) == EVALUATED_ROWS
    assert torch.allclose(batched(net, x), batched(net, x, 7), atol=1e-5)


def test_a_run_is_made_to_fit_says_so_and_gives_the_same_records(tmp_path, capsys, monkeypatch):
    whole = ps.run(TINY, out=tmp_path / "whole", engine="serial")
    with pytest.raises(ConfigError, match=r"one trial alone needs about .* for the program"):
        ps.run(TINY, out=tmp_path / "none", engine="serial", memory="100MB")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="one trial alone needs"):
        ps.run(TINY, out=tmp_path / "whole", engine="serial", memory="100MB", fresh=True)
    assert (ps.load(tmp_path / "whole").trials["status"] == "finished").all(), "what is refused forgets nothing"
    made = []
    processes = engines.Processes(jobs=3)
    monkeypatch.setattr(engines, "engine", lambda *a, **k: made.append(processes) or processes)
    monkeypatch.setattr(processes, "map", engines.Serial().map, raising=False)
    fitted = ps.run(TINY, out=tmp_path / "fitted", memory="1300MB", quiet=False)
    assert processes.jobs == 2
    assert "2 of 3 workers, to stay within 1.3 GB" in capsys.readouterr().err
    key = ["trial", "metric", "split", "phase", "layer"]
    tables = [r.records[r.records["metric"] == "loss"].sort_values(key).reset_index(drop=True) for r in (whole, fitted)]
    assert tables[0]["value"].tolist() == pytest.approx(tables[1]["value"].tolist(), rel=1e-4)
    assert "prunescope.experiments.memory" in sys.modules
