"""What every section of a job is made of: a frozen, closed model, and kinds of values that several sections share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


@dataclass(frozen=True, slots=True)
class Words:
    """What a value with a constraint that only machines read is called in messages ("should be <text>")."""

    text: str


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f'names "{name}" twice')
    return names


Scalar = str | int | float | bool | None
Text = Annotated[str, StringConstraints(min_length=1)]
ImportPath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), Words('written "package.module:name"')
]
Names = Annotated[tuple[Text, ...], AfterValidator(_distinct)]
Paths = Annotated[tuple[Text, ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Compression = Literal["auto", "none", "gzip", "bzip2", "zstd"]


class Section(BaseModel):
    """Frozen, closed, strict: `rows: "many"` and unknown keys are faults, never guesses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
