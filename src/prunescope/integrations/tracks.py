"""What is told to trackers: names and steps of facts, each once, and the settings that tell a trial from others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prunescope.results.following import Followed, moments
from prunescope.results.live import Fact

TRAINING = ("train", "pruned", "finetune")
LEFT_OUT = ("entropy", "chance")  # the same in other words, or the same everywhere


class Told:
    """What has been told of each trial already, so that nothing is written twice."""

    def __init__(self) -> None:
        self._seen: dict[str, set[tuple[str, str, float]]] = {}
        self._trained: dict[str, float] = {}

    def new(self, trial: Followed, facts: Iterable[Fact]) -> list[tuple[str, int, float]]:
        """(tag, step, value) of what is new and of use to a tracker; the step is the epoch, fine-tuning comes after training."""
        seen, found = self._seen.setdefault(trial.name, set()), list[tuple[str, int, float]]()
        trained = 0.0 if facts is trial.facts else self._trained.get(trial.name, 0.0)  # all of a trial's, or what is new of them
        for moment, fact in moments(facts, trained):
            if fact.phase == "train":
                self._trained[trial.name] = max(moment, self._trained.get(trial.name, 0.0))
            key = (fact.phase, tag(fact), fact.epoch)
            if fact.metric not in LEFT_OUT and key not in seen:
                seen.add(key)
                found.append((key[1], round(moment), fact.value))
        return found

    def forget(self, trial: Followed) -> None:
        """A trial is over, or begins anew."""
        self._seen.pop(trial.name, None)
        self._trained.pop(trial.name, None)


def tag(fact: Fact) -> str:
    """What a fact is called: "accuracy/validation", "mi_input/binning/fc1", and after training "final/accuracy/test".

    >>> tag(Fact("mi_label", "train", 3, "train", "fc1", "binning", 1.2)), tag(Fact("bytes", "final", 0, "", "", "", 80))
    ('mi_label/binning/fc1', 'final/bytes')
    """
    split = "" if fact.estimator else fact.split  # the plane has one split in a run
    parts = ("" if fact.phase in TRAINING else fact.phase, fact.metric, fact.estimator, fact.layer, split)
    return "/".join(part for part in parts if part)


def parameters(trial: Followed, config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the trial from others, and the settings that all share, with dotted names."""
    level = {} if trial.sparsity is None else {"sparsity": trial.sparsity}
    own = {"group": trial.group, "variant": trial.variant, **level, "seed": trial.seed}
    shared = {k: v for section in ("data", "model", "training", "finetune", "prune") for k, v in _dotted(section, config.get(section))}
    variant: Mapping[str, Any] = next((v for v in config.get("variant", []) if v.get("name") == trial.variant), {})
    changed = {k: v for section in ("data", "model", "training", "finetune", "prune") for k, v in _dotted(section, variant.get(section))}
    return {**{k: v for k, v in own.items() if v != ""}, **shared, **changed}


def _dotted(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _dotted(f"{name}.{key}", inner)
    elif value is not None and value != []:
        yield name, value
