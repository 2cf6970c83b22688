"""A prompt as users write it, to one caption a chunk: a text, a list, or captions keyed by the frame they begin at.

Light on purpose (no torch): planning a batch names worlds by their captions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from lyra_core.errors import PromptError
from lyra_core.native import CHUNK_FRAMES


def captions_of_chunks(prompt: str, num_chunks: int, chunk_frames: int = CHUNK_FRAMES) -> tuple[str, ...]:
    """One caption a chunk.

    Args:
        prompt: a text for all chunks; a JSON list of texts, one a chunk; or a JSON object of texts by frame, each
            holding from that frame on (the form of the reference implementation).
        num_chunks: of the video.
        chunk_frames: frames of a chunk.

    Raises:
        PromptError: JSON of another form, another number of captions than chunks, or none for the first chunk.
    """
    if not prompt.lstrip().startswith(("[", "{")):
        return (prompt,) * num_chunks
    try:
        captions = json.loads(prompt)
    except (ValueError, RecursionError):
        return (prompt,) * num_chunks  # a caption that begins with a bracket
    texts = list(captions.values()) if isinstance(captions, dict) else captions
    if not all(isinstance(text, str) for text in texts):
        raise PromptError(f"a prompt in JSON is a list of texts or an object of texts by frame, found {prompt[:80]!r}")
    if isinstance(captions, dict):
        return captions_by_frame(_frames(captions), num_chunks, chunk_frames)
    if len(captions) != num_chunks:
        raise PromptError(f"wanted one caption for each of {num_chunks} chunks, found {len(captions)}")
    return tuple(captions)


def captions_by_frame(
    captions: Mapping[int, str], num_chunks: int, chunk_frames: int = CHUNK_FRAMES
) -> tuple[str, ...]:
    """One caption a chunk, from captions by frame: the last one at or before the chunk's first frame.

    Raises:
        PromptError: no caption holds for the first chunk.
    """
    keys = sorted(captions)
    if not keys or keys[0] > 1:
        raise PromptError(f"a caption must hold from frame 0 or 1 on, found captions from frames {keys}")
    firsts = (1 + chunk_frames * k for k in range(num_chunks))
    return tuple(captions[max(key for key in keys if key <= first)] for first in firsts)


def _frames(found: Mapping[str, str]) -> dict[int, str]:
    try:
        return {int(frame): text for frame, text in found.items()}
    except ValueError as error:
        raise PromptError(f"captions are keyed by frame numbers, found {', '.join(found)}") from error
