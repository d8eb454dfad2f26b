"""What every table of a config is: unknown keys are errors, values never change once read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the config: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
