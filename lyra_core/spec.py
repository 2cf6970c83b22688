"""What is asked of the factory for one world: light, serialisable, and enough to make the world anywhere."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from lyra_core.public_uri import public_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSpec:
    """One world to make, with its identity already decided.

    Attributes:
        world_id: the last chunk id.
        chunk_ids: c_0 .. c_k, each chained to the one before.
        seed_uri: where the photograph is read from, signature and all; public_uri() gives what may be shown.
        seed_sha256: digest of its bytes; the worker refuses other bytes under the same URI.
        ordinal: position of the seed in its manifest, counted from 0.
        camera_path: preset name, or the URI of a trajectory file.
        num_frames: 1 + 80 per chunk.
        prompts: one caption for all chunks, or one a chunk.
        variant: which of several worlds of one seed.
        cameras_sha256: digest of the requested cameras; the worker refuses a camera file that holds others by then.
        hfov_deg: horizontal field of view stated by the manifest, if any.
        camera_height_m: height of the camera above the ground stated by the manifest, if any, metres.
        center_distance_m: distance of what the photograph's centre shows, likewise.
        seed_license, seed_source_url, seed_attribution: as the manifest states them.
    """

    world_id: str
    chunk_ids: tuple[str, ...]
    seed_uri: str
    seed_sha256: str
    ordinal: int
    camera_path: str
    num_frames: int
    prompts: tuple[str, ...] = ()
    variant: int = 0
    cameras_sha256: str = ""
    hfov_deg: float | None = None
    camera_height_m: float | None = None
    center_distance_m: float | None = None
    seed_license: str | None = None
    seed_source_url: str | None = None
    seed_attribution: str | None = None

    def to_json(self) -> str:
        """One line of JSON, for plan files."""
        # Not asdict: it copies every value deeply, which is most of the time of planning a long manifest.
        return json.dumps({name: getattr(self, name) for name in _FIELDS}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> WorldSpec:
        """The inverse of to_json."""
        fields = json.loads(line)
        fields["chunk_ids"] = tuple(fields["chunk_ids"])
        fields["prompts"] = tuple(fields["prompts"])
        return cls(**fields)

    @property
    def stem(self) -> str:
        """The seed image's file name without its ending."""
        address = public_uri(self.seed_uri)
        if "://" in address:
            address = address.partition("?")[0]
        return address.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]

    @property
    def name(self) -> str:
        """The stem and the first eight characters of the id, as shown in the Prefect UI."""
        return f"{self.stem}-{self.world_id[:8]}"


_FIELDS = tuple(field.name for field in dataclasses.fields(WorldSpec))
