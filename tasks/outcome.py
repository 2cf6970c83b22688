"""What comes back from making a world: small, picklable values, never a video and never a live exception."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lyra_core.spec import WorldSpec

# The stage of rejects whose storage was at fault: planning does not skip them.
SOURCE_STAGE = "source"
OutcomeKind = Literal["created", "exists", "rejected", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one attempt at a world did not work.

    Attributes:
        permanent: retrying cannot help; the seed is rejected at once.
        stage: the stage that raised, or "worker" for a death or a hang.
        error_type: class name of the error.
        message: one sentence for people.
        traceback: for the reject row, empty for expected errors.
    """

    permanent: bool
    stage: str
    error_type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one world in this run.

    Attributes:
        kind: "created", "exists" (another writer was first), "rejected", or "failed" (the batch was stopped).
        stage_s: seconds per stage.
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
    thumbnail: str = ""
    attempts: int = 1
