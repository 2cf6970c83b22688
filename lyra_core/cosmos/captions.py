"""Captions in the form that Cosmos 3 was trained with where no actions steer it: a JSON object.

NVIDIA lets a large language model write it from a short text. This is a form that is filled in: weaker, and equal on
every machine.
"""

from __future__ import annotations

import json

from lyra_core.geometry.requests import PRESETS

ASPECTS = ("1,1", "4,3", "3,4", "16,9", "9,16")


def json_caption(plain: str, path_name: str, *, num_frames: int, fps: float, width: int, height: int) -> str:
    """A caption of one window.

    Args:
        plain: what the scene is.
        path_name: of the camera path; a preset's says how the camera moves.
        num_frames: of the window.
        fps: of the clip.
        width: pixels.
        height: pixels.
    """
    seconds = num_frames / fps
    scene = plain.strip()
    scene += "." if scene and scene[-1] not in ".!?" else ""
    motion = camera_motion(path_name)
    known = {
        "cinematography": {"camera_motion": motion},
        "actions": [],
        "temporal_caption": f"{scene} The scene is static, nothing in it moves. {motion}".strip(),
        "duration": f"{int(seconds)}s",
        "fps": float(fps),
        "resolution": {"H": height, "W": width},
        "aspect_ratio": min(ASPECTS, key=lambda ratio: abs(_value(ratio) - width / height)),
    }
    return json.dumps(known)


def without_marks(text: str) -> str:
    """A caption in which the marks of the tokenizer, as <|im_end|>, are text like any other."""
    return text.replace("<|", "< |")


def camera_motion(path_name: str) -> str:
    """One sentence on how the camera moves."""
    preset = PRESETS.get(path_name)
    return f"The camera {preset.description}." if preset else "The camera moves smoothly through the scene."


def _value(ratio: str) -> float:
    wide, high = ratio.split(",")
    return int(wide) / int(high)
