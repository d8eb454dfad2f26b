"""Names for the things that prunescope knows and for the user's own ones ("module:function").

Each registry below is filled by the package that owns its entries: importing `prunescope.pruning` fills `criteria`, and so on.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from prunescope.types import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """A registered function: what it needs, where it comes from (`source`: paper and equation) and traits for the contract tests."""

    kind: str
    name: str
    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
    source: str = ""
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword-only parameters that a config may set, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def open(self) -> bool:
        """Whether the function takes keywords beyond those that it names."""
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.function).parameters.values())

    def arguments(self, context: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Keywords for a call: `context` (set by the caller) and the user's `options`, checked by name and, for our own entries, by type.

        A "module:function" gets only the context that its signature names. ConfigError on an unknown, mistyped or missing option.
        """
        parameters = inspect.signature(self.function).parameters
        named = {n: p for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
        known = [n for n in named if n not in context]
        label = f"{self.kind} {self.name!r}"
        if not self.open:
            for name in options:
                if name not in known:
                    raise ConfigError(unknown(f"option of {label}", name, known or ["none: it has no options"]))
        for name in known:
            if named[name].default is inspect.Parameter.empty and name not in options:
                raise ConfigError(f"{label} needs the option {name!r}: set it")
        if not self.traits.get("own"):
            check_types(label, self.function, options)
        given = {n: v for n, v in context.items() if n in named or not self.traits.get("own")}
        return {**given, **options}


class Registry:
    """The entries of one kind. `registry("name", needs=(...), source="...")` is the decorator that adds one."""

    def __init__(self, kind: str, plural: str) -> None:
        self.kind, self.plural = kind, plural
        self._entries: dict[str, Entry] = {}

    def __call__(
        self, name: str, *, needs: tuple[str, ...] = (), source: str = "", **traits: Any
    ) -> Callable[[F], F]:
        def register(function: F) -> F:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(self.kind, name, function, needs, source, traits)
            return function

        return register

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return list(self._entries)

    def get(self, name: str) -> Entry:
        """The entry called `name`, or one made of the user's own function when `name` is "module:function".

        An entry with the trait `spelling` (a regular expression) also answers to names that it fits, and then has what they state as the
        trait `stated`: "2:4" is "n:m" with n = 2 and m = 4.
        """
        if (known := self._known(name)) is not None:
            return known
        if ":" in name:
            return Entry(self.kind, name, load_function(name), traits={"own": True})
        raise ConfigError(unknown(self.kind, name, self.names(), own=True))

    def imports(self, name: str) -> bool:
        """Whether `get(name)` would import a module of somebody's own."""
        return ":" in name and self._known(name) is None

    def _known(self, name: str) -> Entry | None:
        """The registered entry that `name` stands for."""
        if name in self._entries:
            return self._entries[name]
        for entry in self:
            if found := re.fullmatch(entry.traits.get("spelling", "(?!)"), name):
                stated = {option: int(value) for option, value in found.groupdict().items()}
                return replace(entry, name=name, traits={**entry.traits, "stated": stated})
        for entry in self._entries.values():  # "timm:NAME": one entry for all names that another package knows
            if (prefix := entry.traits.get("prefix")) and name.startswith(prefix):
                return replace(entry, name=name, traits={**entry.traits, "reference": name.removeprefix(prefix)})
        return None


def unknown(kind: str, name: str, known: list[str], *, own: bool = False) -> str:
    """The sentence for a name that is not known: near names first, then all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    more = ' or "module:function" of your own' if own else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}{more}"


def check_types(label: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first option whose value does not fit the function's annotation (no conversion is done)."""
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(function)
    for name, value in options.items():
        try:
            TypeAdapter(hints.get(name, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            hint = inspect.formatannotation(hints[name]).replace("collections.abc.", "").replace("typing.", "")
            raise ConfigError(f"option {name!r} of {label}: expected {hint}, got {value!r}") from error


def load_function(path: str) -> Callable[..., Any]:
    """The object that "module:function" names; the working directory is searched first, as `python -m` does.

    Whoever got the name from a file asks `prunescope.config.trust` first: nothing is asked here. The function has to be reached through the
    module itself, not through another one that it imports: "mine:os.system" would be code of `os`.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ConfigError(f"{path!r}: expected module:function, both names as Python writes them, e.g. mycode:network")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path!r}: no module named {error.name!r} on the path or in {here}") from error
    except Exception as error:  # the user's module may raise anything while it is imported
        raise ConfigError(f"{path!r}: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            names = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            raise ConfigError(unknown(f"function in {module_name!r}", part, names)) from error
        if inspect.ismodule(found):
            raise ConfigError(f"{path!r}: {part} is a module that {module_name} imports: name it directly, as {found.__name__}:function")
    if not callable(found):
        raise ConfigError(f"{path!r} is a {type(found).__name__}: expected a function or class")
    return found  # type: ignore[no-any-return]


datasets = Registry("dataset", "datasets")
models = Registry("model", "models")
estimators = Registry("estimator", "estimators")
criteria = Registry("criterion", "criteria")
signals = Registry("signal", "signals")
granularities = Registry("granularity", "granularities")
allocations = Registry("allocation", "allocations")
schedules = Registry("schedule", "schedules")
measures = Registry("measure", "measures")
backends = Registry("back-end", "backends")
optimizers = Registry("optimizer", "optimizers")

REGISTRIES = {
    r.plural: r
    for r in (datasets, models, estimators, criteria, signals, granularities, allocations, schedules, measures, backends, optimizers)
}
