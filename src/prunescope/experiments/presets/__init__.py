"""The experiments that come with prunescope, one TOML file each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from prunescope.config import merge, read_toml
from prunescope.registry import unknown
from prunescope.types import ConfigError


def names() -> list[str]:
    """The names of all presets, `quickstart` first."""
    found = sorted(p.name.removesuffix(".toml") for p in resources.files(__name__).iterdir() if p.name.endswith(".toml"))
    return ["quickstart", *(n for n in found if n != "quickstart")]


def text(name: str) -> str:
    """The TOML text of the preset called `name`."""
    if name not in names():
        raise ConfigError(unknown("preset", name, names()) + "; a config of your own is given as FILE.toml")
    return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def preset(name: str) -> dict[str, Any]:
    """The tables of the preset called `name`."""
    return tomllib.loads(text(name))


def tables(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The tables that a preset's name, a TOML file's path or a mapping stand for, and what to call them in messages.

    A config may begin with `extends = "PRESET"`: its tables are laid over that preset's.
    """
    if isinstance(source, Mapping):
        found, name = dict(source), "config"
    elif str(source).endswith(".toml") or isinstance(source, Path):
        found, name = read_toml(Path(source)), str(source)
        found.setdefault("name", Path(source).stem)
    else:
        found, name = preset(source), source
        found.setdefault("name", source)
    parent = found.pop("extends", None)
    return (merge(preset(parent), found) if parent is not None else found), name
