"""The history layout: which latent frames a chunk sees, in what order and how strongly they are
packed.

A layout is written `f1k1f4s2f1s1f16k4f2k2f1k1_g20`: segments `f<count><kind><factor>` in slot
order, then `_g<count>` generated latent frames. Kind `k` (temporal) packs `factor` latents in
time, rows and columns; kind `s` (spatial, retrieved frames) packs rows and columns only. Frame
packing: Zhang & Agrawala 2025, "Packing Input Frame Context in Next-Frame Prediction Models",
section 3; the segments are those of Lyra 2.

A slot is one latent frame of the network's input; history slots come first, generated ones last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal

from lyra_core.errors import FrameError, RecipeError

SegmentKind = Literal["temporal", "spatial"]

_SEGMENT = re.compile(r"f(\d+)([ks])(\d+)")
_LAYOUT = re.compile(r"((?:f\d+[ks]\d+)+)_g(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive slots that are packed alike.

    Attributes:
        frames: number of slots.
        kind: "temporal" packs time, rows and columns, "spatial" rows and columns only.
        factor: how many base tokens along each packed axis become one.
    """

    frames: int
    kind: SegmentKind
    factor: int

    @property
    def pooling(self) -> tuple[int, int, int]:
        """Base tokens that become one along time, rows and columns."""
        return (self.factor if self.kind == "temporal" else 1, self.factor, self.factor)

    def token_grid(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Tokens along time, rows and columns; incomplete groups of base tokens are padded."""
        t, h, w = self.pooling
        return ceil(self.frames / t), ceil(rows / h), ceil(columns / w)

    def __str__(self) -> str:
        return f"f{self.frames}{'k' if self.kind == 'temporal' else 's'}{self.factor}"


@dataclass(frozen=True, kw_only=True)
class HistoryLayout:
    """The segments of a chunk's history and the number of latent frames it generates.

    Attributes:
        segments: history segments in slot order.
        num_generated: latent frames one chunk generates.

    Raises:
        RecipeError: a segment without frames, a factor below 1, nothing to generate.
    """

    segments: tuple[Segment, ...]
    num_generated: int

    def __post_init__(self) -> None:
        if self.num_generated < 1 or any(s.frames < 1 or s.factor < 1 for s in self.segments):
            raise RecipeError(f"a history layout needs counts and factors of at least 1, found '{self}'")

    @classmethod
    def parse(cls, text: str) -> HistoryLayout:
        """Read the written form.

        Raises:
            RecipeError: the text does not follow the grammar of this module.
        """
        match = _LAYOUT.fullmatch(text)
        if match is None:
            raise RecipeError(f"a history layout is written like 'f1k1f4s2f1s1f16k4f2k2f1k1_g20', found '{text}'")
        segments = tuple(
            Segment(
                frames=int(frames),
                kind="temporal" if kind == "k" else "spatial",
                factor=int(factor),
            )
            for frames, kind, factor in _SEGMENT.findall(match.group(1))
        )
        return cls(segments=segments, num_generated=int(match.group(2)))

    def __str__(self) -> str:
        return "".join(map(str, self.segments)) + f"_g{self.num_generated}"

    @cached_property
    def all_segments(self) -> tuple[Segment, ...]:
        """History segments, then the generated one, which is not packed."""
        return (*self.segments, Segment(frames=self.num_generated, kind="temporal", factor=1))

    @cached_property
    def slot_ranges(self) -> tuple[range, ...]:
        """The slots of each segment of `all_segments`."""
        ranges, start = [], 0
        for segment in self.all_segments:
            ranges.append(range(start, start + segment.frames))
            start += segment.frames
        return tuple(ranges)

    @property
    def num_history(self) -> int:
        """History slots, temporal and spatial."""
        return sum(segment.frames for segment in self.segments)

    @property
    def num_slots(self) -> int:
        """History and generated slots."""
        return self.num_history + self.num_generated

    @cached_property
    def spatial_slots(self) -> tuple[int, ...]:
        """Slots of retrieved frames, worst first."""
        return self._slots_of("spatial")

    @cached_property
    def temporal_slots(self) -> tuple[int, ...]:
        """History slots that hold latents of the video itself."""
        return self._slots_of("temporal")

    def _slots_of(self, kind: SegmentKind) -> tuple[int, ...]:
        pairs = zip(self.segments, self.slot_ranges, strict=False)
        return tuple(slot for segment, slots in pairs if segment.kind == kind for slot in slots)

    @property
    def num_anchors(self) -> int:
        """Slots that keep the first latents of the video: an unpacked first segment of several."""
        if not self.segments or self.segments[0].kind == "spatial" or self.segments[0].factor > 1:
            return 0
        has_recent = any(segment.kind == "temporal" for segment in self.segments[1:])
        return self.segments[0].frames if has_recent else 0

    def temporal_indices(self, num_latents: int) -> list[int]:
        """Which latents of the video so far fill the temporal slots: the anchors, then the newest.

        Args:
            num_latents: latents the video has so far.

        Raises:
            FrameError: fewer latents than temporal slots.
        """
        wanted = len(self.temporal_slots)
        if num_latents < wanted:
            raise FrameError(
                f"the layout '{self}' needs at least {wanted} history latents, "
                f"found {num_latents}; repeat the seed frame in front of the video"
            )
        recent = wanted - self.num_anchors
        return [*range(self.num_anchors), *range(num_latents - recent, num_latents)]

    def num_tokens(self, rows: int, columns: int) -> tuple[int, int]:
        """History tokens and generated tokens, from the base token grid of one latent frame."""
        counts = [t * h * w for t, h, w in (s.token_grid(rows, columns) for s in self.all_segments)]
        return sum(counts[:-1]), counts[-1]
