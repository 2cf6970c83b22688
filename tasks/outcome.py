"""What goes to a worker with a world and comes back: small, picklable values, never a video or a live exception."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lyra_core.spec import WorldSpec

# The stage of rejects whose storage was at fault: planning does not skip them.
SOURCE_STAGE = "source"
OutcomeKind = Literal["created", "exists", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the pool knows of an attempt when it begins.

    Attributes:
        attempt: from 1; those of earlier runs that killed their worker count.
        queue_s: seconds between submission to the pool and this start.
    """

    attempt: int = 1
    queue_s: float | None = None


FIRST_START = Start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one attempt at a world did not work.

    Attributes:
        permanent: retrying cannot help: the seed is rejected at once, or, where storage is to blame, the batch ends.
        stage: the stage that raised, or "worker" for a death or a hang.
        error_type: class name of the error.
        message: one sentence for people.
        traceback: for the reject row, empty for expected errors.
        blames_store: the output's storage failed, which says nothing about the seed.
    """

    permanent: bool
    stage: str
    error_type: str
    message: str
    traceback: str = ""
    blames_store: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A made world is not stored yet, because storage fails; ask again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one world in this run.

    Attributes:
        kind: "created", "exists" (another writer was first) or "rejected".
        stage_s: seconds per stage.
        idle_s: how long the worker's device waited for this world after the one before; None for its first.
        device_s: how long this world's networks kept it.
        thumbnail: data URI of a small JPEG, or "".
    """

    spec: WorldSpec
    kind: OutcomeKind
    failure: Failure | None = None
    accepted: bool | None = None
    num_splats: int = 0
    num_bytes: int = 0
    psnr_db: float | None = None
    stage_s: dict[str, float] = field(default_factory=dict)
    idle_s: float | None = None
    device_s: float = 0.0
    thumbnail: str = ""
    attempts: int = 1
