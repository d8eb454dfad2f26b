"""Discretion: passwords and keys are neither stored in a run folder nor in the reason why a trial failed.

What settings hold is stored with the results, so a secret among them is refused: a function of one's own reads it from the environment,
which is never stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prunescope.types import ConfigError

NAMED = re.compile(
    r"(?i)(.*[_.-])?(password|passwd|passphrase|secret|credentials?|(api|access|secret|private|auth)[_-]?key|(api|auth|access|bearer|hf)[_-]?token)|token"
)
IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
HIDDEN = "***"
SHORTEST = 6  # characters of a variable that are hidden wherever they stand: shorter ones would hide words


def refuse_secrets(settings: Mapping[str, Any], where: str) -> None:
    """ConfigError where a setting is called like a secret and is a text, or is an address with a password in it.

    >>> refuse_secrets({"model": {"tokens": True, "token": ""}}, "config")
    """
    for place, text in texts(settings):
        named = NAMED.fullmatch(place.rpartition(".")[2])
        if text and (named or IN_ADDRESS.search(text)):
            what = "is called like a secret" if named else "is an address with a password in it"
            raise ConfigError(
                f"{where}: {place} {what}, and settings are stored in the run folder: leave it out, and let your function read it from an "
                "environment variable"
            )


def discreet(text: str) -> str:
    """`text` without passwords in addresses and without what environment variables that are called like secrets hold.

    >>> discreet("no answer from https://me:hunter2@host/path")
    'no answer from https://***@host/path'
    """
    found = IN_ADDRESS.sub(HIDDEN, text)
    for name, value in sorted(os.environ.items(), key=lambda item: -len(item[1])):  # one may be part of another
        if len(value) >= SHORTEST and NAMED.fullmatch(name) and value in found:
            found = found.replace(value, HIDDEN)
    return found


def printable(text: str) -> str:
    """`text` without the characters by which a file could write to the terminal what it likes.

    >>> printable("a file\\x1b[2Jname\\nof two lines")
    'a file?[2Jname\\nof two lines'
    """
    return CONTROL.sub("?", text)


def discreet_words(words: Sequence[str]) -> list[str]:
    """A command line with the values of secrets hidden.

    >>> discreet_words(["prune", "mine:net", "-s", "api_key=abc", "--log=mlflow=http://me:pw@host", "-s", "width=3"])
    ['prune', 'mine:net', '-s', 'api_key=***', '--log=mlflow=http://***@host', '-s', 'width=3']
    """
    found = []
    for word in map(discreet, words):
        key, equals, value = word.partition("=")
        found.append(f"{key}={HIDDEN}" if equals and value and NAMED.fullmatch(key.rpartition(".")[2]) else word)
    return found


def texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(dotted place, text) of every text in nested tables and lists; an entry of a list stands at the list's place.

    >>> list(texts({"model": {"name": "mlp", "names": ["a", "b"]}}))
    [('model.name', 'mlp'), ('model.names', 'a'), ('model.names', 'b')]
    """
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from texts(inner, place)
