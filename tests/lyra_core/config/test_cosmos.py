"""Choices of Cosmos 3: bounds, rules about several, windows."""

from dataclasses import fields, replace

import pytest

from lyra_core.canvases import CANVASES, SIZES, tier_of
from lyra_core.config.cosmos import CAMERA, DEPTH_TRANSFER, IMAGE, IMAGE_STUDENT, CosmosOptions
from lyra_core.config.rollout import identity_text
from lyra_core.errors import RecipeError


def test_windows_bring_the_same_number_of_new_frames():
    assert [CAMERA.window_frames(chunk) for chunk in (0, 1, 2)] == [61, 61, 61]
    assert [replace(CAMERA, overlap_latents=2).window_frames(chunk) for chunk in (0, 1)] == [61, 65]
    assert all(
        (o.window_frames(c) - 1) % 4 == 0 for o in (CAMERA, DEPTH_TRANSFER, IMAGE, IMAGE_STUDENT) for c in (0, 1)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_frames": 62}, "multiple of 4, the frames of a latent, found 62; the nearest are 60 and 64"),
        ({"karras_sigmas": True}, r"flow_shift=10 has no effect while karras_sigmas is true; set"),
        ({"karras_sigmas": True, "flow_shift": 1.0, "scheduler": "euler"}, "belongs to scheduler='unipc'"),
        ({"mode": "depth", "memory": "replace"}, "memory belongs to mode='camera', .* with mode='depth'; leave it out"),
        ({"mode": "image", "is_closed_loop": True}, "is_closed_loop belongs to mode='camera'"),
        ({"mode": "image", "action_gain": 2.0}, "action_gain belongs to mode='camera'"),
        ({"mode": "image", "calibration": "0123"}, "calibration belongs to mode='camera'"),
        ({"mode": "depth", "view_point": "wrist_view"}, "view_point belongs to mode='camera'"),
        ({"control_guidance": 2.0}, r"control_guidance belongs to mode='depth', found control_guidance=2.0 with mode="),
        ({"caption_form": "json"}, "caption_form belongs to mode='depth' or 'image', found caption_form='json'"),
        ({"has_templates": True}, "has_templates belongs to mode='image' with plain captions"),
        ({"negative_prompt": "people"}, "negative_prompt belongs to guidance_scale above 1"),
        ({"max_correction_deg": 1.0}, "max_correction_deg belongs to is_closed_loop=true"),
        ({"replace_erosion": 2}, "replace_erosion belongs to memory='replace'"),
        ({"overlap_latents": 3}, "overlap_latents must be at most 2, found 3"),
        ({"guidance_scale": 0.0}, "guidance_scale must be at least 1"),
    ],
)
def test_choices_that_do_not_go_together(changes, message):
    with pytest.raises(RecipeError, match=message):
        replace(CAMERA, **changes)


def test_every_choice_is_part_of_the_text_that_ids_hold():
    text = identity_text(CAMERA)
    assert all(f"{field.name}=" in text for field in fields(CosmosOptions))
    assert "library='diffusers 0.42.1'" in text


def test_canvases_are_those_of_the_library():
    pytest.importorskip("diffusers")
    from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import _ACTION_RESOLUTION_BINS

    theirs = {int(tier): {(w, h) for h, w in bins.values()} for tier, bins in _ACTION_RESOLUTION_BINS.items()}
    assert {tier: set(sizes) for tier, sizes in CANVASES.items()} == theirs
    assert all((width, height) in CANVASES[tier_of(width, height)] for width, height in SIZES)
    with pytest.raises(RecipeError, match="848x480 is none of the canvases"):
        tier_of(848, 480)
