"""What a worker may use: cores, GPUs and memory. It cannot change results, so it takes no part in a trial's hash."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def number_of_bytes(value: Any) -> Any:
    """A size such as "2GB" or "512 MiB" in bytes; a whole number is one already.

    >>> number_of_bytes("2GB"), number_of_bytes("1.5 GiB"), number_of_bytes(1024)
    (2000000000, 1610612736, 1024)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) and len(value) < 40 else None
    factor = {unit.lower(): size for unit, size in UNITS.items()}.get(found[2].lower()) if found else None
    if found is None or factor is None or (size := round(float(found[1]) * factor)) < 1:
        raise ValueError(f'expected a size such as "2GB" or "512MiB", got {value!r}')
    return size


class ResourcesConfig(BaseModel):
    """What each worker may use. It changes no result: it takes no part in a trial's hash, and no variant or grid may change it.

    cpus    cores that a worker holds, and its threads unless `--threads` says otherwise; engine "processes" starts one worker for so
            many cores
    gpus    GPUs that a worker holds (engine "ray"; 0.5: two workers share one), to go with `--device cuda`; other engines leave it alone
    memory  what a worker is expected to need at most, such as "2GB": engine "ray" places no more workers on a machine than it has memory
            for; other engines leave it alone
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: int = Field(1, ge=1)
    gpus: float = Field(0.0, ge=0)
    memory: Annotated[int | None, BeforeValidator(lambda v: None if v is None else number_of_bytes(v))] = None

    @model_validator(mode="after")
    def _whole(self) -> ResourcesConfig:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: expected a whole number, or a fraction below 1 for workers that share one, got {self.gpus:g}")
        return self
