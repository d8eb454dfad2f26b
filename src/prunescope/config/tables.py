"""Tables of a config: read from TOML, changed by dotted keys, validated as sections, hashed by their values."""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prunescope import limits
from prunescope.config.sections import ExperimentConfig, OpenSection
from prunescope.registry import unknown
from prunescope.types import ConfigError

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or one sentence on what is wrong with it."""
    try:
        return tomllib.loads(limits.read_bytes(path, "config", ConfigError).decode("utf-8").replace("\r\n", "\n"))
    except FileNotFoundError as error:
        raise ConfigError(f"no config file {str(path)!r}: give a TOML file or a preset (`prunescope list presets`)") from error
    except ConfigError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    except (ValueError, RecursionError) as error:  # not all of them are TOMLDecodeErrors: a number of 5,000 digits is none
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` as a dotted key and a JSON value; what is not JSON is a string.

    >>> parse_override("training.lr=1e-3"), parse_override("data.name=fashion-mnist")
    (('training.lr', 0.001), ('data.name', 'fashion-mnist'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-s {text[:80]!r}: expected KEY=VALUE, for example -s training.epochs=3")
    try:
        return key.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return key.strip(), value


def override(tables: Mapping[str, Any], changes: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A copy of `tables` with dotted keys set; tables in between are made, never replaced by a value."""
    try:
        result: dict[str, Any] = json.loads(json.dumps(tables, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:  # a date, half a character, a list in a list in a list ...
        raise ConfigError(f"a setting is of no use: expected texts, numbers, true or false, lists and tables: {error}") from error
    for key, value in dict(changes).items():
        if not isinstance(key, str):
            raise ConfigError(f"{key!r}: expected a dotted key such as training.epochs")
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key!r}: {parent!r} is a value, not a table, so nothing can be set inside it")
        place[last] = value
    return result


def merge(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` with the nested `changes` laid over them; tables merge, everything else is replaced."""
    merged = dict(tables)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def experiment_config(tables: Mapping[str, Any], *, source: str = "config") -> ExperimentConfig:
    """The validated experiment; every fault is named at once, with the near names of unknown keys."""
    return validated(ExperimentConfig, tables, source=source)


def validated(kind: type[S], tables: Mapping[str, Any], *, source: str) -> S:
    """`tables` as a `kind`, or a ConfigError that lists everything wrong with them."""
    try:
        return kind.model_validate(dict(tables))
    except ValidationError as error:
        faults = [_sentence(kind, e) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in faults)) from error


def _sentence(kind: type[BaseModel], error: Any) -> str:
    internal = ("function-", "literal", "list[", "constrained")  # pydantic names the branch of a union in the location
    location = [p for p in error["loc"] if not (isinstance(p, str) and p.startswith(internal))]
    place = ".".join(str(p) for p in location if p not in ("int", "float", "str"))
    if error["type"] == "extra_forbidden":
        section, known = kind, list(kind.model_fields)
        for part in location[:-1]:
            section = _inner(section, part) or section
            known = list(section.model_fields)
        return f"{place}: " + unknown("key", str(location[-1]), known)
    message = error["msg"].removeprefix("Value error, ")
    came = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"{place}: {message}{came}" if place else message


def _inner(section: type[BaseModel], part: Any) -> type[BaseModel] | None:
    if isinstance(part, int):
        return section
    field = section.model_fields.get(part)
    inner = getattr(field, "annotation", None)
    for candidate in (inner, *getattr(inner, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def essence(section: BaseModel) -> dict[str, Any]:
    """The settings of `section` that differ from their defaults, JSON-ready: a key that is added later changes nothing of it."""
    dumped = section.model_dump(mode="json", exclude_defaults=True)
    if isinstance(section, OpenSection):
        dumped = {k: v for k, v in dumped.items() if k in type(section).model_fields} | {"name": section.name, "options": section.options}
    return dumped


class _Same:
    """Something that is equal to itself alone: settings hold tables, which have no hash."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


def once(function: Callable[[S], T]) -> Callable[[S], T]:
    """`function`, worked out once for each settings object: a sweep has many trials and few settings, which never change once read."""
    kept = functools.lru_cache(maxsize=1024)(lambda same: function(same.it))
    return functools.wraps(function)(lambda settings: kept(_Same(settings)))


def value_hash(values: Any) -> str:
    """16 hex digits that depend on the values alone: not on key order, on spelling or on where the run lives.

    >>> value_hash({"a": 1, "b": 0.5}) == value_hash({"b": 0.50, "a": 1})
    True
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
