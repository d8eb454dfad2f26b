"""A network of the user's own, trained elsewhere: pruned, fine-tuned where there are data, made smaller, measured at every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.config import PruneConfig, TrainingConfig
from prunescope.experiments.execution import prune_options
from prunescope.measures.quality import Measurement, as_tensor, loss_function, predictions
from prunescope.measures.size import size
from prunescope.pruning import Masks, prune
from prunescope.pruning.compact import CompactError, CompactReport, compact
from prunescope.pruning.pruner import read_calibration
from prunescope.registry import load_function
from prunescope.training.optim import build, learning_rates
from prunescope.types import ConfigError, DataError, PrunescopeError, Split

KEYS = ("model", "train", "test", "loss", "example_inputs")
DEFAULTS = {"epochs": 0, "optimizer": "adam", "lr": 1e-3}  # of fine-tuning
Loss = Callable[[Any, Tensor], Tensor]


@dataclass
class Network:
    """What a function of the user's own gives: a trained model, data to calibrate and fine-tune with, data to test with, its loss.

    train, test      loaders of (inputs, labels), pairs of tensors or Splits; None where there are none
    loss             the name of a loss (then accuracy is measured too), or (outputs, labels) -> mean loss
    example_inputs   inputs of a forward pass; the first rows of the data unless given
    """

    model: nn.Module
    train: Any = None
    test: Any = None
    loss: str | Loss = "cross-entropy"
    example_inputs: Any = None
    name: str = "network"

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            data = getattr(self, name)
            if data is not None and not isinstance(data, Split) and (not isinstance(data, Iterable) or isinstance(data, Iterator)):
                once = ", which can be gone through only once" if isinstance(data, Iterator) else ""
                raise DataError(f"{name} is a {type(data).__name__}{once}: expected a loader of (inputs, labels) or a pair of tensors")

    @property
    def loss_fn(self) -> Loss:
        """(outputs, labels) -> mean loss."""
        if not isinstance(self.loss, str):
            return self.loss
        named = loss_function(self.loss)
        return lambda output, y: named(as_tensor(output), y)

    def example(self) -> Any:
        """Two rows to trace the network with; None where nothing is known of its inputs."""
        if self.example_inputs is not None:
            return self.example_inputs
        data = self.train if self.train is not None else self.test
        return None if data is None else next(x for x, _ in read_calibration(data, 2, torch.device("cpu")) or [])


def network(source: str, options: Mapping[str, Any]) -> Network:
    """The Network that the function "module:function" returns when it is called with `options`.

    It returns the model, (model, train), (model, train, test), or a mapping with keys model, train, test, loss, example_inputs.
    ConfigError where it raises or returns something else.
    """
    function = load_function(source)
    try:
        found = function(**options)
    except PrunescopeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(f"{source} raised {type(error).__name__}: {error}: mend it, or its options with -s KEY=VALUE") from error
    if isinstance(found, Mapping):
        if wrong := sorted(set(found) - set(KEYS)):
            raise ConfigError(f"{source} returned the keys {', '.join(map(str, wrong))}: known are {', '.join(KEYS)}")
        given = dict(found)
    else:
        parts = found if isinstance(found, tuple | list) else (found,)
        given = dict(zip(KEYS, parts, strict=False)) if len(parts) <= 3 else {}
    if not isinstance(given.get("model"), nn.Module):
        kind = type(found).__name__
        raise ConfigError(f"{source} returned a {kind}: expected a torch.nn.Module, (model, train), (model, train, test) or a mapping")
    if isinstance(given.get("loss"), str):
        loss_function(given["loss"])
    return Network(**given, name=source.partition(":")[2])


@dataclass
class Shrunk:
    """What became of a network: the smallest one, its masks, and what was measured at each stage ("as given", "pruned", ...).

    masks     of the network before compaction; None where it was compacted, as the smaller network needs none
    compact   the report of the compaction; None where there was none, `note` says why
    """

    model: nn.Module
    masks: Masks | None
    stages: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    sparsity: float = 0.0
    compact: CompactReport | None = None
    note: str = ""


def shrink(
    net: Network,
    pruning: PruneConfig,
    *,
    sparsity: float | None,
    finetune: TrainingConfig,
    compacted: bool = True,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Shrunk:
    """Prune `net.model` in place, fine-tune it for `finetune.epochs`, and make it smaller. The masks hold through the fine-tuning.

    sparsity    fraction removed; None where the granularity, a table or a threshold states it
    compacted   remove what the masks leave constant; where that cannot be done the masked network stays and `note` says why
    watcher     hears the stages and the epochs

    Raises what `prune` raises, and ConfigError for fine-tuning without training data.
    """
    if finetune.epochs and net.train is None:
        raise ConfigError(f"finetune.epochs = {finetune.epochs} needs training data: let the function return (model, train loader)")
    heard = watcher or Watcher()
    example, found = net.example(), Shrunk(net.model, None)

    def stage(name: str, model: nn.Module, masks: Masks | None) -> None:
        found.stages[name] = _measured(model, net)
        heard.stage(name, model, masks)

    stage("as given", net.model, None)
    data = read_calibration(net.train, pruning.calibration, _device(net.model)) if net.train is not None else None
    masks = prune(
        net.model, sparsity=sparsity, data=data, loss_fn=net.loss_fn, example_inputs=example, seed=seed, **prune_options(pruning)
    )
    found.masks, found.sparsity = masks, masks.sparsity()
    stage("pruned", net.model, masks)
    if finetune.epochs:
        _finetune(net, masks, finetune, seed, heard)
        stage("fine-tuned", net.model, masks)
    if not compacted:
        return found
    if example is None:
        found.note = "not made smaller: nothing is known of its inputs, so give data or --input SHAPE"
        return found
    net.model.eval()
    try:
        small, report = compact(net.model, masks, example)
    except CompactError as error:
        found.note = f"not made smaller: {error}"
        return found
    found.model, found.masks, found.compact = small, None, report
    stage("compacted", small, None)
    return found


class Watcher:
    """Hears what `shrink` does; this one does nothing."""

    def stage(self, name: str, model: nn.Module, masks: Masks | None) -> None:
        """A stage is reached and measured."""

    def epoch(self, number: int, model: nn.Module, steps: int) -> None:
        """An epoch of fine-tuning is over."""


def _finetune(net: Network, masks: Masks, settings: TrainingConfig, seed: int, heard: Watcher) -> None:
    optimizer = build(net.model, settings)
    rates, held, loss_fn, device, steps = learning_rates(optimizer, settings), masks.attach(optimizer), net.loss_fn, _device(net.model), 0
    net.model.train()
    with torch.random.fork_rng(devices=[]):
        for number in range(settings.epochs):
            torch.manual_seed(rng.stream_seed(seed, "finetune", "noise", number))  # dropout, and a loader that shuffles
            rows = settings.batch_size if isinstance(settings.batch_size, int) else 0
            for x, y in batches(net.train, rows, rng.torch_generator(seed, "finetune", "order", number)):
                optimizer.zero_grad()
                loss_fn(_called(net.model, x, device), y.to(device)).backward()
                optimizer.step()
                steps += 1
            rates.step()
            heard.epoch(number + 1, net.model, steps)
    held.remove()
    net.model.eval()


def batches(data: Any, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Any, Tensor]]:
    """Batches of a loader as they come, or of whole tensors, `size` rows each (0: all), in an order that `generator` draws."""
    if isinstance(data, Split):
        data = (data.x, data.y)
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor):
        x, y = data
        order = torch.arange(len(x)) if generator is None else torch.randperm(len(x), generator=generator)
        yield from ((x[rows], y[rows]) for rows in order.split(size or len(x)))
        return
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise DataError(f"the loader gave a {type(batch).__name__}: expected (inputs, labels)")
        yield batch[0], batch[1]


def _called(model: nn.Module, x: Any, device: torch.device) -> Any:
    if isinstance(x, Mapping):
        return model(**{k: v.to(device) for k, v in x.items()})
    return model(*(v.to(device) for v in x)) if isinstance(x, tuple | list) else model(x.to(device))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _measured(model: nn.Module, net: Network) -> dict[str, Measurement]:
    """Loss on the test data (else the training data), accuracy where the loss is one by name, and sizes."""
    data, device = net.test if net.test is not None else net.train, _device(model)
    found = {m.metric: m for m in size(model)}
    if data is None:
        return found
    modes, total, right, n = {m: m.training for m in model.modules()}, 0.0, 0, 0
    if not isinstance(model, torch.fx.GraphModule):
        model.eval()
    with torch.no_grad():
        for x, y in batches(data, 1024):
            output, y = _called(model, x, device), y.to(device)
            total += float(net.loss_fn(output, y)) * len(y)
            if isinstance(net.loss, str):
                right += int((predictions(as_tensor(output)) == y).sum())
            n += len(y)
    for module, mode in modes.items():
        module.training = mode
    if not n:
        raise DataError("the test data hold no batch: expected at least one (inputs, labels)")
    quality = {"loss": Measurement("loss", total / n, "nats" if isinstance(net.loss, str) else "", n)}
    if isinstance(net.loss, str):
        quality["accuracy"] = Measurement("accuracy", right / n, "fraction", n)
    return {**quality, **found}
