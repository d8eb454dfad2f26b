"""Pruning over time in experiments: during training, in rounds with rewinding, dynamic; what each leaves in the run folder."""

import json

import pandas as pd
import pytest
import safetensors.torch
import torch

import prunescope as ps
from prunescope.experiments import tasks
from prunescope.experiments.execution import Execution
from prunescope.experiments.planning import plan
from prunescope.experiments.tickets import random_masks, remaining
from prunescope.experiments.trial import trial_steps
from prunescope.report import html
from prunescope.report.payload import payload

SMALL = {
    "name": "small",
    "question": "?",
    "baseline": "dense",
    "seeds": 2,
    "sparsity": [0.36, 0.488],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2]},
    "model": {"name": "mlp", "widths": [8, 6], "activation": "tanh"},
    "training": {"epochs": 4, "batch_size": 64, "optimizer": "adam", "lr": 0.01},
    "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8}]}},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "during", "prune": {"when": "during", "end": 0.5}},
        {"name": "during, steps", "prune": {"when": "during", "schedule": "linear", "every": 3, "every_in": "steps", "begin": 0.25}},
        {"name": "soft", "prune": {"when": "during", "soft": True}, "finetune": {"epochs": 1}},
        {"name": "set", "prune": {"when": "dynamic", "grow": "set"}},
        {"name": "rigl", "prune": {"when": "dynamic", "every": 2, "every_in": "steps"}},
        {"name": "winning", "prune": {"when": "rewind", "rate": 0.2}},
        {"name": "reinitialised", "prune": {"when": "rewind", "rate": 0.2, "tickets": "reinitialised"}},
        {"name": "random", "prune": {"when": "rewind", "rate": 0.2, "tickets": "random-mask"}},
        {"name": "epoch 2", "prune": {"when": "rewind", "rounds": 2, "rewind": 2}},
        {"name": "rate", "prune": {"when": "rewind", "rounds": 2, "rewind": "rate"}},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return ps.run(SMALL, out=tmp_path_factory.mktemp("run") / "small", engine="serial")


def pick(run, **where) -> pd.DataFrame:
    table = run.records
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def stored(run, variant: str, level: float, seed: int = 0) -> tuple[dict, dict]:
    row = run.trials[(run.trials["variant"] == variant) & (run.trials["sparsity"] == level) & (run.trials["seed"] == seed)].iloc[0]
    folder = run.folder / "trials" / row["hash"]
    return tuple(safetensors.torch.load_file(folder / f"{f}.safetensors") for f in ("weights", "masks"))


def test_all_finish_at_the_sparsity_that_was_asked_for(finished):
    assert finished.trials["reason"].fillna("").unique().tolist() == [""]
    assert (finished.trials["status"] == "finished").all()
    assert len(finished.trials) == 2 * (1 + 10 * 2)
    for variant in (v["name"] for v in SMALL["variant"][1:]):
        for level in SMALL["sparsity"]:
            weights, masks = stored(finished, variant, level)
            assert {n: int((m == 0).sum()) for n, m in masks.items()} == {n: round(level * m.numel()) for n, m in masks.items()}
            assert all((weights[n][m == 0] == 0).all() for n, m in masks.items())
            reached = pick(finished, variant=variant, sparsity=level, metric="sparsity", phase="final", seed=0, layer="fc1.weight")
            more = 0.1 if variant in ("set", "rigl") else 0  # what grows behind pixels that are always zero stays zero
            assert level - 2e-3 <= reached["value"].iloc[0] <= level + 2e-3 + more


def test_phases(finished):
    phases = {v: set(pick(finished, variant=v)["phase"]) for v in finished.records["variant"].unique()}
    assert phases["during"] == phases["set"] == {"train", "pruned", "final"}
    assert phases["soft"] == phases["winning"] == phases["rate"] == {"train", "pruned", "finetune", "final"}
    early = pick(finished, variant="epoch 2", phase="finetune", metric="loss", split="validation", seed=0, sparsity=0.488)
    assert sorted(set(early["epoch"])) == [2, 3, 4], "the training goes on from the epoch whose weights it returned to"


def test_sparsity_rises_through_the_training(finished):
    rows = pick(finished, variant="during", sparsity=0.488, seed=0, phase="train", metric="sparsity", layer="fc1.weight")
    values = rows.sort_values("epoch")["value"].tolist()
    assert values == pytest.approx([0.488 * (1 - 0.5**3), 0.488, 0.488, 0.488], abs=2e-3)
    rigl = pick(finished, variant="rigl", sparsity=0.488, seed=0, phase="train", metric="sparsity", layer="fc1.weight")
    masked = [json.loads(p)["masked"] for p in rigl.sort_values("epoch")["parameters"]]
    assert masked[1:] == [round(0.488 * 512)] * 4
    assert set(pick(finished, variant="rigl")["criterion"]) == {"rigl"}


def test_controls_share_the_rounds_and_differ_in_one_thing(finished):
    _, masks = stored(finished, "winning", 0.488)
    for variant in ("reinitialised", "random"):
        _, other = stored(finished, variant, 0.488)
        assert {n: int(m.sum()) for n, m in other.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert all(torch.equal(masks[n], m) for n, m in stored(finished, "reinitialised", 0.488)[1].items())
    assert not all(torch.equal(masks[n], m) for n, m in stored(finished, "random", 0.488)[1].items())
    dense = pick(finished, phase="train", metric="loss", split="train", epoch=0.0, seed=0)
    assert dense[dense["variant"] == "winning"]["value"].unique() == dense[dense["variant"] == "dense"]["value"].unique()
    chains = list((finished.folder / "dense").glob("*/rounds-*"))
    assert len(chains) == 2 * 3, "one for the three kinds of tickets, one for epoch 2, one for the rate, of each seed"
    shared = [len(list(c.iterdir())) for c in chains]
    assert sorted(shared) == [3, 3, 4, 4, 4, 4], "20 % a round: three rounds hold both levels; two rounds to each level share none"


def steps_until(work: Execution, count: int):
    """The `count`-th training that a trial without a cache waits for, all before it carried out."""
    from prunescope.experiments.together import carry_out

    steps = trial_steps(work, None)
    for number in range(1, count + 1):
        training = next(steps)
        if number < count:
            carry_out([training])
    return training


def execution(variant: str, level: float = 0.488) -> Execution:
    trial = next(t for t in plan(SMALL).trials if t.variant == variant and t.sparsity == level and t.seed == 1)
    return Execution(trial, data_dir=None, device="cpu")


def test_tickets_return_exactly_to_the_initial_weights():
    work = execution("winning")
    initial = {n: v.clone() for n, v in work.model.state_dict().items()}
    for number in (2, 3):
        work = execution("winning")
        training = steps_until(work, number)
        assert training.phase == f"rewind {number - 1}"
        assert training.masks.sparsity() == pytest.approx(1 - 0.8 ** (number - 1), abs=5e-3)
        for name, value in work.model.state_dict().items():
            assert torch.equal(value, initial[name] * training.masks.get(name, torch.ones_like(value)))


def test_rewinding_to_an_epoch_restores_its_weights_on_what_is_kept():
    work = execution("epoch 2")
    first = steps_until(work, 1)
    kept = {}

    class Keep:
        def epoch_end(self, state):
            if state.epoch == 2:
                kept.update({n: v.clone() for n, v in state.model.state_dict().items()})

    from prunescope.training import train

    train(first.model, first.data, first.settings, seed=first.seed, phase=first.phase, listeners=[Keep()])
    work = execution("epoch 2")
    training = steps_until(work, 2)
    for name, value in work.model.state_dict().items():
        mask = training.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        torch.testing.assert_close(value, kept[name] * mask, rtol=1e-5, atol=1e-6)
        assert (value[~mask] == 0).all()
    assert torch.equal(work.early["fc1.weight"][training.masks["fc1.weight"]], work.model.fc1.weight[training.masks["fc1.weight"]])
    assert training.settings.from_epoch == 2
    assert remaining(execution("rate")).from_epoch == 0


def test_learning_rate_rewinding_keeps_the_trained_weights():
    work = execution("rate")
    steps = trial_steps(work, None)
    from prunescope.experiments.together import carry_out

    carry_out([next(steps)])
    trained = {n: v.clone() for n, v in work.model.state_dict().items()}
    training = next(steps)
    assert all(torch.equal(v, trained[n] * training.masks.get(n, torch.ones_like(v))) for n, v in work.model.state_dict().items())


def test_random_masks_keep_counts_and_are_seeded():
    masks = ps.Masks({"a": torch.arange(100).view(10, 10) < 30, "b": torch.arange(8) < 2})
    one, again, other = random_masks(masks, 0), random_masks(masks, 0), random_masks(masks, 1)
    assert {n: int(m.sum()) for n, m in one.items()} == {"a": 30, "b": 2}
    assert torch.equal(one["a"], again["a"])
    assert not torch.equal(one["a"], other["a"])


def numbered(records: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Records with the same keys told apart by their order."""
    return records.assign(number=records.groupby(keys).cumcount())


def test_what_is_missing_is_done_again_with_the_same_records(finished, tmp_path):
    """Without caches and one by one the same numbers come, to rounding; the rounds of tickets go in stacks."""
    only = {"variant": [SMALL["variant"][i] for i in (0, 1, 5, 6, 8)]}
    again = ps.run(SMALL, overrides=only, out=tmp_path / "again", engine="serial", stack="off")
    keys = ["trial", "phase", "epoch", "step", "split", "layer", "metric"]
    wanted, others = (numbered(r.records[r.records["metric"].isin(["loss", "sparsity", "nonzero"])], keys) for r in (again, finished))
    pairs = wanted.merge(others, on=[*keys, "number"], suffixes=("", "_stacked"))
    assert len(pairs) == len(wanted)
    close = (pairs["value"] - pairs["value_stacked"]).abs() <= 1e-3 * pairs["value"].abs() + 1e-4
    assert close.groupby(pairs["trial"]).mean().min() > 0.95
    folder = again.folder / "trials" / again.trials[again.trials["variant"] == "winning"]["hash"].iloc[0]
    before = ps.load(again.folder).records
    (folder / "trial.json").unlink()
    resumed = ps.run(SMALL, overrides=only, out=tmp_path / "again", engine="serial", stack="off")
    pd.testing.assert_frame_equal(resumed.records.sort_values(keys).reset_index(drop=True), before.sort_values(keys).reset_index(drop=True))


def test_what_changes_masks_trains_one_by_one_and_says_so(tmp_path):
    todo = [tasks.Task(t, tmp_path, None, "cpu") for t in plan(SMALL).trials if t.variant in ("during", "rigl", "winning")]
    made, texts = tasks.batches(todo, lambda t: t.kind, stack="auto", jobs=1)
    assert {b.tasks[0].trial.variant: len(b.tasks) for b in made} == {"during": 1, "rigl": 1, "winning": 4}
    assert any('one by one: with prune.when = "during" masks change while training' in t for t in texts)


def test_the_report_shows_them(finished):
    page = html.page(payload(finished))
    for variant in ("during", "soft", "rigl", "winning", "epoch 2"):
        assert variant in page
