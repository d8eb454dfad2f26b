"""Networks of other packages: "timm:NAME" and "hf:NAME_OR_PATH", with weights drawn here or read from a local folder.

Nothing is downloaded, no code from a folder or a hub is run and no pickle is read, whatever options a config gives: those by which these
packages would do any of that are refused.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from prunescope.models.initialisation import EMBEDDING_SD
from prunescope.models.layers import image_shape, sequence_shape
from prunescope.registry import models
from prunescope.types import ConfigError, MissingExtraError

Pool = Literal["mean", "last", "first"]
# Options by which the packages fetch, unpickle or run what others wrote: timm's `checkpoint_path` is a file of any kind.
TIMM_REFUSED = frozenset(
    ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable", "model_name"]
)
HF_REFUSED = frozenset(
    [
        "trust_remote_code", "code_revision", "auto_map", "revision", "subfolder", "cache_dir", "token", "use_auth_token", "proxies",
        "force_download", "local_files_only", "name_or_path", "_name_or_path", "pretrained_model_name_or_path", "adapter_kwargs",
        "use_kernels", "kernel_config", "quantization_config", "allow_all_kernels",
    ]
)  # fmt: skip
ATTENTION = frozenset([None, "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"])  # others are code from a hub


@models("timm:NAME", source="R. Wightman: PyTorch Image Models (timm)", prefix="timm:", sample=(3, 32, 32), example="timm:resnet10t")
def timm_model(
    *, input_shape: tuple[int, ...], classes: int, generator: Generator, reference: str, **options: Any
) -> nn.Module:
    """Any image network of timm with random weights; further keys go to timm.create_model; needs the extra `vision`.

    Nothing is downloaded. ConfigError for options that would fetch or unpickle weights (pretrained, checkpoint_path, ...).
    """
    _refuse(f"timm:{reference}", options, TIMM_REFUSED)
    timm = _package("timm", f"timm:{reference} needs timm and a torchvision that fits torch", "vision")
    channels, *size = image_shape(f"timm:{reference}", input_shape)
    if not timm.is_model(reference):
        near = ", ".join(difflib.get_close_matches(reference, timm.list_models(), n=3, cutoff=0.5))
        raise ConfigError(f"timm knows no model {reference!r}: " + (f"did you mean {near}?" if near else "see timm.list_models()"))
    given: dict[str, Any] = {"num_classes": classes, "in_chans": channels, **options}
    return _built(f"timm:{reference}", generator, lambda: _timm(timm, reference, tuple(size), given))


def _package(name: str, need: str, extra: str) -> Any:
    """The package called `name`, or the sentence that says which extra brings it."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
        raise MissingExtraError(f"{need} ({error}): pip install 'prunescope[{extra}]'") from error


def _timm(timm: Any, reference: str, size: tuple[int, ...], given: dict[str, Any]) -> nn.Module:
    try:
        made: nn.Module = timm.create_model(reference, pretrained=False, img_size=size, **given)
    except TypeError:  # only networks with positions ask for the image's size
        made = timm.create_model(reference, pretrained=False, **given)
    return made


class Adapter(nn.Module):
    """A Hugging Face network between our samples and class logits: `embed` makes its inputs, `output` reads its pooled hidden state."""

    def __init__(self, backbone: nn.Module, inputs: str, features: int, classes: int, pool: Pool) -> None:
        super().__init__()
        config: Any = backbone.config
        width, depth = int(config.hidden_size), int(getattr(config, "num_hidden_layers", 0))
        self.inputs, self.pool = inputs, pool
        self.embed = nn.Linear(features, width) if inputs == "inputs_embeds" else None
        if isinstance(getattr(backbone, "pooler", None), nn.Module):
            backbone.pooler = None  # type: ignore[assignment]  # nobody reads it here, and unread weights are not to be counted
        self.backbone = backbone
        self.output = nn.Linear(width, classes)
        stacks = [n for n, m in backbone.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth > 0]
        if stacks:
            part = "last" if pool == "last" else "tokens"
            self.plane_layers = [f"backbone.{stacks[0]}.{number}@{part}" for number in range(depth)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        given = x.long() if self.inputs == "input_ids" else (self.embed(x) if self.embed is not None else x)
        hidden = self.backbone(**{self.inputs: given}).last_hidden_state
        if hidden.ndim == 4:  # convolutional networks give maps
            hidden = hidden.flatten(2).transpose(1, 2)
        read = {"mean": lambda: hidden.mean(1), "last": lambda: hidden[:, -1], "first": lambda: hidden[:, 0]}[self.pool]()
        return self.output(read)  # type: ignore[no-any-return]


@models(
    "hf:NAME_OR_PATH", source="Wolf et al. 2020, arXiv:1910.03771 (transformers)", prefix="hf:", sample=(8, 8),
    example="hf:gpt2", example_options={"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 20},
)  # fmt: skip
def hf_model(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    reference: str,
    pool: Pool = "mean",
    tokens: bool = False,
    **options: Any,
) -> nn.Module:
    """A Hugging Face network: a model type ("gpt2", "llama", "bert", "vit", ...) with random weights, or a local folder with its own.

    Further keys are the configuration's (n_layer, hidden_size, ...). Sequences (n, steps, features) enter through a linear layer, images
    as pixels, and with tokens = true (n, steps) whole numbers as tokens; a linear layer reads the last hidden state, pooled over positions
    by `pool`. Nothing is downloaded, and no code of the folder is run (ConfigError for options that ask for it). Needs the extra `hf`.
    Children embed (sequences only), backbone, output.
    """
    name = f"hf:{reference}"
    _refuse(name, options, HF_REFUSED)
    transformers = _package("transformers", f"{name} needs transformers", "hf")
    inputs, features, shape_options = _entrance(name, input_shape, tokens)
    config, weights = _configuration(transformers, reference, {**shape_options, **options})

    def make() -> nn.Module:
        if weights is not None:
            backbone = transformers.AutoModel.from_pretrained(
                weights, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        else:
            backbone = transformers.AutoModel.from_config(config, trust_remote_code=False)
        adapter = Adapter(backbone, inputs, features, classes, pool)
        for layer in (adapter.embed, adapter.output):
            if layer is not None:
                nn.init.normal_(layer.weight, 0.0, max(EMBEDDING_SD, layer.in_features**-0.5))
                nn.init.zeros_(layer.bias)
        return adapter

    return _built(name, generator, make)


def _entrance(name: str, input_shape: tuple[int, ...], tokens: bool) -> tuple[str, int, dict[str, Any]]:
    """The keyword that a network is given its samples by, their features, and what the configuration has to know of them."""
    if tokens:
        if len(input_shape) != 1:
            raise ConfigError(f"{name}: samples have shape {input_shape}: with tokens = true expected (steps,) whole numbers")
        return "input_ids", 0, {}
    if len(input_shape) == 3:
        channels, height, width = input_shape
        return "pixel_values", 0, {"num_channels": channels, "image_size": height if height == width else [height, width]}
    return "inputs_embeds", sequence_shape(name, input_shape)[1], {}


def _configuration(transformers: Any, reference: str, options: dict[str, Any]) -> tuple[Any, Path | None]:
    """The configuration with `options` in it, and the folder of weights to read, if there is one."""
    folder = Path(reference).expanduser()
    try:
        if (folder / "config.json").is_file():
            weights = folder if any(folder.glob("*.safetensors")) else None
            found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
            return plain_attention(found, f"hf:{reference}"), weights
        return plain_attention(transformers.AutoConfig.for_model(reference, **options), f"hf:{reference}"), None
    except ConfigError:
        raise
    except Exception as error:  # its validators raise what they like
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"hf:{reference}: expected a model type of transformers (gpt2, llama, bert, vit, ...) or a folder with config.json, "
            f"and options that it has: {reason}"
        ) from error


def plain_attention(config: Any, name: str) -> Any:
    """`config`, if it asks for no attention that transformers would fetch as code ("OWNER/KERNEL")."""
    for part in (config, *(v for v in vars(config).values() if hasattr(v, "_attn_implementation"))):
        if (asked := part._attn_implementation) not in ATTENTION:
            known = ", ".join(sorted(filter(None, ATTENTION)))
            raise ConfigError(f"{name}: attention {asked!r} would be code from elsewhere: expected one of {known}")
    return config


def _refuse(name: str, options: dict[str, Any], refused: frozenset[str]) -> None:
    if wrong := sorted(refused & set(options)):
        raise ConfigError(
            f"{name}: {', '.join(wrong)} would fetch, unpickle or run what others wrote, which a config cannot ask for: leave it out, or "
            'build the network in a function of your own and name that ("module:function")'
        )


def _built(name: str, generator: Generator, make: Any) -> nn.Module:
    """What `make` builds, its draws from torch's global generator decided by `generator`; the global state is put back."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model: nn.Module = make()
        except (ConfigError, MissingExtraError):
            raise
        except Exception as error:  # the other package may raise anything for options that do not fit
            raise ConfigError(f"model {name!r} raised {type(error).__name__}: {error}: check its options") from error
    return model.float()
