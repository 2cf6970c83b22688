"""One window: the library's own call is the oracle, with equal latents."""

import pytest
import torch
from cosmos_scene import HEIGHT, WIDTH, path, photograph

from lyra_core.config.cosmos import CAMERA, DEPTH_TRANSFER, IMAGE, IMAGE_STUDENT
from lyra_core.cosmos.actions import path_to_actions
from lyra_core.cosmos.pipeline import FrameWindow, Known, camera_pipeline, pictures
from lyra_core.errors import FrameError

SEED = 7


@pytest.fixture(scope="module")
def actions():
    return path_to_actions(path(9))


def window(known, actions=None, **more):
    return FrameWindow(
        known=known, num_frames=more.pop("num_frames", 9), caption="a wall", seed=SEED, actions=actions, **more
    )


def clip(frames):
    """Different frames."""
    image = photograph().image
    return torch.stack([image.roll(5 * i, 1) for i in range(frames)])


def by_hand(components, actions, image, **changes):
    """The call as the library documents it."""
    from diffusers import Cosmos3OmniPipeline, CosmosActionCondition

    pipeline = Cosmos3OmniPipeline(**components.named, enable_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    action = CosmosActionCondition(
        mode="forward_dynamics",
        chunk_size=len(actions),
        domain_name="camera_pose",
        resolution_tier=256,
        raw_actions=actions,
        **image,
    )
    settings = {"fps": 30.0, "num_inference_steps": 2, "guidance_scale": 1.0, "use_system_prompt": False}
    return pipeline(
        prompt="a wall",
        action=action,
        generator=torch.Generator().manual_seed(SEED),
        **{**settings, "output_type": "latent", **changes},
    ).video


def test_one_window_equals_the_librarys_call(sample, options, actions):
    sampler, components = sample(options)
    made = sampler(window(clip(1), actions))
    image = {"image": pictures(clip(1))[0]}
    assert torch.equal(made.latents, by_hand(components, actions, image)[0])
    shown = by_hand(components, actions, image, output_type="pil")
    assert made.frames.shape == (9, HEIGHT, WIDTH, 3)
    assert pictures(made.frames) == shown


def test_two_latents_are_tied_and_the_rest_is_new(sample, shrink, actions):
    sampler, components = sample(shrink(CAMERA, overlap_latents=2))
    known = clip(5)
    made = sampler(window(known, actions))
    pipeline = camera_pipeline()(**components.named, enable_safety_checker=False)
    filled = torch.cat([known, known[-1:].expand(4, -1, -1, -1)])
    anchors = pipeline.encode(filled)[0]
    assert torch.allclose(made.latents[:, :2], anchors[:, :2], atol=1e-6)
    assert not torch.allclose(made.latents[:, 2], anchors[:, 2], atol=1e-2)
    one = sampler(window(known[:1], actions))
    assert not torch.equal(one.latents[:, 1], made.latents[:, 1])


def test_the_library_still_looks_at_the_first_frame_only(sample, options, actions):
    """What the subclass is for; should the library learn it, the subclass can go."""
    _, components = sample(options)
    one = by_hand(components, actions, {"image": pictures(clip(1))[0]})
    assert torch.equal(one, by_hand(components, actions, {"video": pictures(clip(5))}))


def test_what_is_not_finite_is_no_black_video(sample, options, actions):
    sampler, components = sample(options)
    components.transformer.proj_out.weight.data.fill_(float("nan"))
    with pytest.raises(FrameError, match=r"should return finite frames, found NaN or infinity; set cosmos\."):
        sampler(window(clip(1), actions))


def test_actions_and_caption_matter(sample, options, actions):
    sampler, _ = sample(options)
    first = sampler(window(clip(1), actions))
    other = sampler(window(clip(1), -actions))
    assert not torch.equal(first.latents, other.latents)


def test_pixels_reach_the_network_in_their_range(sample, options, actions, monkeypatch):
    sampler, components = sample(options)
    ranges = []
    encode = components.vae.encode
    monkeypatch.setattr(components.vae, "encode", lambda x: ranges.append((x.min(), x.max(), x.shape)) or encode(x))
    white = torch.full((1, HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    white[:, :8] = 0
    sampler(window(white, actions))
    least, largest, shape = ranges[0]
    assert (float(least), float(largest)) == (-1.0, 1.0)
    assert tuple(shape[-2:]) == (HEIGHT, WIDTH)


def test_memory_is_put_in_while_noise_is_high_and_nowhere_else(sample, shrink, actions):
    settings = shrink(CAMERA, num_steps=4, memory="replace", replace_share=0.5)
    sampler, _ = sample(settings)
    cells = torch.zeros(3, HEIGHT // 16, WIDTH // 16, dtype=torch.bool)
    nothing = sampler(window(clip(1), actions, memory=Known(frames=clip(9), cells=cells)))
    plain = sampler(window(clip(1), actions))
    assert torch.equal(nothing.latents, plain.latents)
    cells[1:, :, :10] = True
    mixed = sampler(window(clip(1), actions, memory=Known(frames=clip(9), cells=cells)))
    assert torch.equal(mixed.latents[:, 0], plain.latents[:, 0]), "what is tied stays tied"
    left, right = (
        (mixed.latents - plain.latents)[:, 1:, :, side].abs().mean() for side in (slice(0, 10), slice(10, 20))
    )
    assert left > 10 * right


def test_all_of_a_memory_that_is_put_in_to_the_end_is_returned(sample, shrink, actions):
    settings = shrink(CAMERA, memory="replace", replace_share=1.0)
    sampler, components = sample(settings)
    cells = torch.ones(3, HEIGHT // 16, WIDTH // 16, dtype=torch.bool)
    made = sampler(window(clip(1), actions, memory=Known(frames=clip(9), cells=cells)))
    known = camera_pipeline()(**components.named, enable_safety_checker=False).encode(clip(9))[0]
    assert torch.allclose(made.latents[:, 1:], known[:, 1:], atol=1e-6)


def test_depth_transfer_equals_the_librarys_call(sample, shrink, capfd):
    from diffusers import Cosmos3OmniBlocks

    settings = shrink(DEPTH_TRANSFER)
    sampler, components = sample(settings)
    grey = torch.arange(9, dtype=torch.uint8)[:, None, None].expand(9, HEIGHT, WIDTH) * 20
    made = sampler(window(clip(5), control=grey.contiguous()))
    assert capfd.readouterr() == ("", ""), "no progress bars among the lines of a batch"
    pipeline = Cosmos3OmniBlocks().init_pipeline()
    pipeline.update_components(**components.named)
    pipeline.disable_safety_checker()
    pipeline.set_progress_bar_config(disable=True)
    control = pictures(grey[..., None].expand(-1, -1, -1, 3))
    state = pipeline(
        prompt="a wall", negative_prompt="", control_videos={"depth": control}, control_guidance=1.5,
        guidance_scale=3.0, video=pictures(clip(5)), num_first_chunk_conditional_frames=5, num_video_frames_per_chunk=9,
        height=HEIGHT, width=WIDTH, fps=30.0, num_inference_steps=2, use_system_prompt=True,
        generator=torch.Generator().manual_seed(SEED),
    )  # fmt: skip
    assert torch.equal(made.latents, state.get("latents")[0].float())
    assert pictures(made.frames) == state.get("videos")
    other = sampler(window(clip(5), control=(255 - grey).contiguous()))
    assert not torch.equal(other.latents, made.latents)


@pytest.mark.parametrize("tied", [1, 5])
def test_image_to_video_equals_the_librarys_call(sample, shrink, tied):
    from diffusers import Cosmos3OmniPipeline

    sampler, components = sample(shrink(IMAGE))
    made = sampler(window(clip(tied)))
    pipeline = Cosmos3OmniPipeline(**components.named, enable_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    known = (
        {"image": pictures(clip(1))[0]} if tied == 1 else {"video": pictures(clip(5)), "condition_video_keep": "last"}
    )
    steps = []
    shown = pipeline(
        prompt="a wall", num_frames=9, height=HEIGHT, width=WIDTH, fps=30.0, num_inference_steps=2, guidance_scale=6.0,
        add_resolution_template=False, add_duration_template=False, use_system_prompt=True,
        generator=torch.Generator().manual_seed(SEED),
        callback_on_step_end=lambda _, step, time, tensors: steps.append(tensors["latents"]) or tensors, **known,
    ).video  # fmt: skip
    assert torch.equal(made.latents, steps[-1][0])
    assert pictures(made.frames) == shown


@pytest.mark.parametrize("tied", [1, 5])
def test_the_students_levels_are_those_of_its_folder(tiny, tmp_path, sample, shrink, tied):
    from diffusers import Cosmos3DistilledBlocks

    from lyra_core.cosmos.checkpoint import read_checkpoint

    student = read_checkpoint(tiny.write_published(tmp_path / "student", is_distilled=True))
    assert student.levels == tiny.LEVELS
    sampler, components = sample(shrink(IMAGE_STUDENT, num_steps=4), student)
    made = sampler(window(clip(tied)))
    pipeline = Cosmos3DistilledBlocks().init_pipeline()
    pipeline.update_components(**components.named)
    pipeline.update_components(distilled_sigmas=list(tiny.LEVELS))
    pipeline.disable_safety_checker()
    pipeline.set_progress_bar_config(disable=True)
    known = (
        {"image": pictures(clip(1))[0]} if tied == 1 else {"video": pictures(clip(5)), "condition_video_keep": "last"}
    )
    state = pipeline(
        prompt="a wall", num_frames=9, height=HEIGHT, width=WIDTH, fps=30.0, add_resolution_template=False,
        add_duration_template=False, generator=torch.Generator().manual_seed(SEED), **known,
    )  # fmt: skip
    assert torch.equal(made.latents, state.get("latents")[0].float())
    assert pictures(made.frames) == state.get("videos")
