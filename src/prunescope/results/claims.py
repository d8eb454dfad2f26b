"""Claims: which run is at which trial, where several work in one folder, on one machine or on many.

    runners/<id>.json         a run at work: a beat that it changes every few seconds, and a fingerprint of its process
    claims/<name>.<number>    its claim on a trial or on a shared training, made so that of two only one succeeds

The claim with the highest number counts. A run that is gone loses what it has claimed: another makes the claim of the next number. Gone is
one whose process no longer exists, where that can be seen, and else one whose beat has stood still for a lease. The lease is measured by
the steady clock of whoever looks on: clocks of two machines are never compared, nor is the time of day asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from prunescope.types import StoreError

CLAIMS, RUNNERS = "claims", "runners"
LEASE = 60.0  # seconds that a beat may stand still
BEATS = 6  # in a lease


class Runner:
    """This run among those that work in `folder`; a context manager, which gives all back at its end.

    lease   seconds after which the claims of a run that shows no sign of life may be taken over
    """

    def __init__(self, folder: Path, lease: float = LEASE) -> None:
        self.folder, self.lease, self.id = folder, lease, secrets.token_hex(8)
        self._own = folder / RUNNERS / f"{self.id}.json"
        self._held: dict[str, Path] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # another run's beat, and when it was first seen
        self._about = {"runner": self.id, **fingerprint(os.getpid())}
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="prunescope claims", daemon=True)

    def __enter__(self) -> Runner:
        try:
            for name in (CLAIMS, RUNNERS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._own.write_bytes(self._state(0))
        except OSError as error:
            raise StoreError(f"{self._own}: cannot be written: {error.strerror or error}; give another folder with --out") from error
        self._tidy()
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._beating.join()
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)
        self._tidy()
        for name in (CLAIMS, RUNNERS):
            with contextlib.suppress(OSError):  # others are at work
                (self.folder / name).rmdir()

    def claim(self, name: str) -> bool:
        """Whether `name` ("trials/<hash>") is this run's to do from now on; False where a run that lives is at it.

        What is claimed may have been finished a moment before: look again after the claim.
        """
        if name in self._held:
            return True
        place = self._place(name, 0)
        if not self._made(place):
            number = self._last(name)
            if self._lives(self._place(name, number)):
                return False
            place = self._place(name, number + 1)
            if not self._made(place):
                return False  # another run was quicker
        self._held[name] = place
        return True

    def release(self, name: str) -> None:
        """Give `name` back, done or not. A claim of another run that came after this one's stays."""
        place = self._held.pop(name, None)
        if place is None:
            return
        for number in range(int(place.suffix[1:]) + 1):  # the lowest first: the highest is the one that counts
            with contextlib.suppress(OSError):
                self._place(name, number).unlink(missing_ok=True)

    def alone(self) -> bool:
        """Whether no other run works in the folder, as far as can be seen."""
        return not any(self._lives(p) for p in self._runners())

    def _place(self, name: str, number: int) -> Path:
        return self.folder / CLAIMS / f"{name.replace('/', '-')}.{number}"

    def _last(self, name: str) -> int:
        """The highest number claimed, found without a listing: the folder may hold the claims of a thousand machines."""
        number = 0
        while self._place(name, number + 1).exists():
            number += 1
        return number

    def _made(self, place: Path) -> bool:
        """Whether the claim could be made; not where another one has it."""
        try:
            try:
                _create(place, self._own, self._state(0))
            except FileNotFoundError:  # a run that ended saw the folder empty, and took it away
                place.parent.mkdir(exist_ok=True)
                _create(place, self._own, self._state(0))
        except FileExistsError:
            return False
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"{place}: cannot be written: {reason}; finished trials are kept, and the same command goes on") from error
        return True

    def _runners(self) -> list[Path]:
        return [p for p in _listing(self.folder / RUNNERS) if p.suffix == ".json" and p != self._own]

    def _lives(self, path: Path) -> bool:
        """Whether the run that made the claim, or that shows the beat, in `path` may still be at work."""
        about = _read(path)
        runner = about.get("runner")
        if runner == self.id:
            return True
        if isinstance(runner, str):
            path = self.folder / RUNNERS / f"{runner}.json"
            if not path.exists():
                return False  # it ended, or was seen to be gone
        known = same_machine(about)
        if known is not None:
            return known
        now = json.dumps(_read(path), sort_keys=True)
        beat, since = self._seen.get(str(path), ("", 0.0))
        if now != beat:
            self._seen[str(path)] = now, time.monotonic()
            return True
        return time.monotonic() - since < self.lease

    def _tidy(self) -> None:
        """Remove what runs left that are gone."""
        gone = [p for p in self._runners() if not self._lives(p)]
        highest: dict[str, tuple[int, Path]] = {}
        for path in _listing(self.folder / CLAIMS):
            if path.suffix[1:].isdigit():
                highest[path.stem] = max(highest.get(path.stem, (-1, path)), (int(path.suffix[1:]), path))
        for number, path in highest.values():
            if not self._lives(path):  # a lower number stays while a higher one is alive: it keeps others from beginning at the first
                gone += [path.with_suffix(f".{n}") for n in range(number + 1)]
        for path in gone:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _beat(self) -> None:
        beat = 0
        while not self._over.wait(self.lease / BEATS):
            beat += 1
            # over what is there, at the same length, so that nobody meets an empty file; a full disk ends the run elsewhere
            with contextlib.suppress(OSError), self._own.open("r+b") as file:
                file.write(self._state(beat))

    def _state(self, beat: int) -> bytes:
        return json.dumps({**self._about, "beat": f"{beat:012d}"}).encode()


def refuse_others(folder: Path) -> None:
    """Raise StoreError if a run is at work in `folder`: what it holds is not to be removed then."""
    if not Runner(folder).alone():
        raise StoreError(f"{folder}: another run is at work there: wait for its end, or leave --fresh out to share the work with it")


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # a run that ended has taken it away
        return []


def _create(place: Path, own: Path, text: bytes) -> None:
    """Make `place` with what says whose it is, or raise FileExistsError: by a second name for `own`, which comes with its content."""
    try:
        os.link(own, place)
    except FileExistsError:
        raise
    except OSError:  # not every file system knows second names; there a reader may meet an empty claim for a moment
        with place.open("xb") as file:
            file.write(text)


def _read(path: Path) -> dict[str, Any]:
    """What a claim or a runner says; nothing where it is gone, or was being written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fingerprint(process: int) -> dict[str, Any]:
    """A process as another one on the same machine can look for it: {"machine", "pid", "born"}; no name of anything is in it."""
    return {"machine": _machine(), "pid": process, "born": _born(process)}


def same_machine(about: dict[str, Any]) -> bool | None:
    """Whether the process of a `fingerprint` lives; None where that cannot be seen from here."""
    machine, process, born = about.get("machine"), about.get("pid"), about.get("born")
    if not machine or machine != _machine() or not isinstance(process, int) or not born:
        return None
    return bool(_born(process) == born)


def _machine() -> str:
    """This start of this machine, and this container's view of its processes; empty where the system does not say."""
    try:
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        return ""
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _born(process: int) -> str:
    """When a process began, in ticks since the machine did: process numbers come again. Empty where there is no such process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
