"""Looks at a folder of clips before a run of days meets what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import FormatError, LyraError
from lyra_core.finetuning.clip_folder import ClipFiles, ClipInfo, list_clips, open_clip
from lyra_core.formats.clip import iterate_frames

Problem = tuple[str, str]
"""The clip and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What a folder of clips holds.

    Attributes:
        num_clips: clips listed.
        num_good: of them without a problem.
        num_frames: of the good ones.
        num_captions: of the good ones.
        sizes: rows and columns of their videos, with counts.
        shortest: frames of the shortest good one.
        longest: frames of the longest.
        total_bytes: of all files of the good ones.
        problems: clips that cannot be used, and why.
    """

    num_clips: int
    num_good: int
    num_frames: int
    num_captions: int
    sizes: dict[tuple[int, int], int]
    shortest: int
    longest: int
    total_bytes: int
    problems: tuple[Problem, ...]


def check_folder(
    folder: Path, *, decode: bool = False, on_clip: Callable[[int, int], None] | None = None
) -> FolderReport:
    """Open every clip: cameras, captions, the archive's list, and depth of its first and last frame.

    Args:
        folder: in the layout of clip_folder.
        decode: decode every frame of video and depth too.
        on_clip: told how many clips are done, and how many there are.

    Raises:
        FormatError: no folder, no clips, or clips without some of their parts.
    """
    files = list_clips(folder)
    good: list[ClipInfo] = []
    problems: list[Problem] = []
    for index, one in enumerate(files, start=1):
        try:
            good.append(_check(one, decode=decode))
        except LyraError as error:
            problems.append((one.name, str(error)))
        if on_clip is not None:
            on_clip(index, len(files))
    lengths = [info.video.num_frames for info in good]
    sizes: dict[tuple[int, int], int] = {}
    for info in good:
        size = (info.video.height, info.video.width)
        sizes[size] = sizes.get(size, 0) + 1
    return FolderReport(
        num_clips=len(files),
        num_good=len(good),
        num_frames=sum(lengths),
        num_captions=sum(len(info.captions) for info in good),
        sizes=sizes,
        shortest=min(lengths, default=0),
        longest=max(lengths, default=0),
        total_bytes=sum(_bytes(info.files) for info in good),
        problems=tuple(problems),
    )


def _check(files: ClipFiles, *, decode: bool) -> ClipInfo:
    info = open_clip(files)
    count = info.video.num_frames
    frames = range(count) if decode else sorted({0, count - 1})
    for frame in frames:
        info.depth.read(frame)
    decoded = 0
    for _ in iterate_frames(files.video):
        decoded += 1
        if not decode:
            break
    if decode and decoded != count:
        # found by decoding only: the container says otherwise
        raise FormatError(f"{files.video} should have {count} frames, but {decoded} can be decoded; write it again")
    return info


def _bytes(files: ClipFiles) -> int:
    parts = (files.video, files.pose, files.intrinsics, files.depth, files.captions)
    return sum(path.stat().st_size for path in parts if path is not None)
