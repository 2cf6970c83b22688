"""The released model's form with tiny weights, from converted files to Gaussians: reproducible, resumable, strict."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.recipes import find_recipe
from lyra_core.errors import (
    FrameError,
    LyraWarning,
    PromptError,
    RecipeError,
    StateDictError,
    WeightsError,
)
from lyra_core.gaussians.prune import is_finite
from lyra_core.values import CameraPath
from lyra_core.video.rollout_request import Photograph
from lyra_core.weights.convert import Labels, convert
from lyra_core.world_models.protocol import WorldModel

IDS = tuple(f"{i:032x}" for i in range(1, 4))


@pytest.fixture(scope="module")
def two_chunks(model, photo, tmp_path_factory):
    """A world of 17 frames and the folder of its chunks."""
    folder = tmp_path_factory.mktemp("world")
    progress = []
    clip = model.generate(
        photo,
        "dolly-in",
        num_frames=17,
        prompts=["a meadow"],
        chunk_ids=IDS[:2],
        chunk_dir=folder,
        on_frame=lambda *at: progress.append(at),
    )
    assert progress == [(9, 17), (17, 17)]
    return clip, folder


class TestVideo:
    def test_it_is_a_world_model(self, model, two_chunks, photo):
        clip, folder = two_chunks
        assert isinstance(model, WorldModel)
        assert len(model.weights_digest) == 64
        assert clip.frames.shape == (17, 48, 64, 3)
        assert torch.equal(clip.frames[0], photo.image)
        assert clip.frames[1:].float().std() > 5
        names = sorted(path.name for path in (folder / "video").iterdir())
        assert names == ["chunk-0000.safetensors", "chunk-0001.safetensors", "chunks.json", "seed.safetensors"]

    def test_a_killed_world_goes_on_with_equal_bytes(self, load, photo, two_chunks, tmp_path):
        clip, folder = two_chunks
        shutil.copytree(folder, tmp_path / "killed")
        listed = json.loads((tmp_path / "killed/video/chunks.json").read_text())
        listed["chunks"].pop()
        (tmp_path / "killed/video/chunks.json").write_text(json.dumps(listed))
        resumed = load().generate(
            photo,
            "dolly-in",
            num_frames=17,
            prompts=["a meadow"],
            chunk_ids=IDS[:2],
            chunk_dir=tmp_path / "killed",
        )
        assert torch.equal(resumed.frames, clip.frames)
        for name in ("chunk-0001.safetensors", "chunks.json"):
            assert (tmp_path / "killed/video" / name).read_bytes() == (folder / "video" / name).read_bytes()

    def test_a_longer_path_continues_the_world(self, model, photo, two_chunks, tmp_path):
        clip, folder = two_chunks
        shutil.copytree(folder, tmp_path / "longer")
        sampled = []
        sample = model.rollout._sample
        model.rollout._sample = lambda *a: sampled.append(a[3]) or sample(*a)
        try:
            longer = model.generate(
                photo, "dolly-in", num_frames=25, prompts=["a meadow"], chunk_ids=IDS, chunk_dir=tmp_path / "longer"
            )
        finally:
            model.rollout._sample = sample
        assert sampled == [2]
        assert torch.equal(longer.frames[:17], clip.frames)
        assert len(longer) == 25

    def test_ids_of_ones_own_share_the_prefix(self, model, photo, two_chunks):
        cameras = two_chunks[0].cameras
        longer = replace(
            cameras,
            world_to_cam=torch.cat([cameras.world_to_cam, cameras.world_to_cam[:8]]),
            intrinsics=torch.cat([cameras.intrinsics, cameras.intrinsics[:8]]),
        )
        short, long = model._chunk_ids(photo, 0, cameras, ["x"], ()), model._chunk_ids(photo, 0, longer, ["x"], ())
        assert long[:2] == short
        assert model._chunk_ids(photo, 1, cameras, ["x"], ())[0] != short[0]
        other = model._chunk_ids(photo, 0, cameras, ["x", "y"], ())
        assert other[0] == short[0]
        assert other[1] != short[1]
        joined = model._chunk_ids(photo, 0, cameras, ["x"], (photograph(photo, cameras, from_chunk=1),))
        assert joined[0] == short[0]
        assert joined[1] != short[1]

    def test_another_photograph_joins_a_finished_world(self, model, photo, two_chunks, tmp_path):
        clip, folder = two_chunks
        shutil.copytree(folder, tmp_path / "joined")
        extra = photograph(photo, clip.cameras, from_chunk=1)
        joined = model.generate(
            photo,
            "dolly-in",
            num_frames=17,
            prompts=["a meadow"],
            chunk_ids=(IDS[0], IDS[2]),
            chunk_dir=tmp_path / "joined",
            photographs=[extra],
        )
        assert torch.equal(joined.frames[:9], clip.frames[:9])
        assert not torch.equal(joined.frames[9:], clip.frames[9:])

    def test_a_known_focal_length_is_kept_and_an_unknown_one_estimated(self, model, photo, two_chunks):
        estimated = two_chunks[0].cameras.intrinsics[0]
        assert float(estimated[0, 0]) != float(photo.intrinsics[0, 0])
        assert torch.equal(estimated[:2, 2], photo.intrinsics[:2, 2])
        known = model.generate(replace(photo, focal_source="manifest"), "dolly-in", num_frames=9, prompts=["x"])
        assert torch.equal(known.cameras.intrinsics[0], photo.intrinsics)

    def test_words_matter_and_their_absence_warns(self, model, photo, two_chunks):
        with pytest.warns(LyraWarning, match="trained with captions"):
            silent = model.generate(photo, "dolly-in", num_frames=9, chunk_ids=IDS[:1])
        assert not torch.equal(silent.frames, two_chunks[0].frames[:9])

    @pytest.mark.parametrize(
        "video",
        [
            {"loras": ["lora-dmd:1.0"]},
            {"sampler": "distilled"},
            {"num_steps": 2},
            {"conditioning": {"mask_channels": "coverage"}},
            {"memory": {"stride_frames": 4}, "depth": {"interval_frames": 4, "align": "overlap"}},
        ],
        ids=lambda video: next(iter(video)),
    )
    def test_choices_reach_the_rollout(self, load, photo, two_chunks, video):
        changed = load(video).generate(photo, "dolly-in", num_frames=17, prompts=["a meadow"], chunk_ids=IDS[:2])
        assert not torch.equal(changed.frames, two_chunks[0].frames)

    def test_guidance_leads_away_from_the_released_embedding(self, load, photo, two_chunks):
        model = load()
        models = replace(model.parts.models, negative_text=-model.parts.models.negative_text)
        model.rollout.models = models
        other = model.generate(photo, "dolly-in", num_frames=9, prompts=["a meadow"], chunk_ids=IDS[:1])
        assert not torch.equal(other.frames, two_chunks[0].frames[:9])


class TestReconstruction:
    @pytest.mark.parametrize("lifter", ["head", "depth"])
    def test_gaussians_and_report(self, load, two_chunks, lifter, tmp_path):
        model = load(reconstruction={"lifter": lifter})
        reports = []
        first = model.reconstruct(two_chunks[0], chunk_dir=tmp_path, on_report=reports.append)
        again = model.reconstruct(two_chunks[0], chunk_dir=tmp_path, on_report=reports.append)
        assert 0 < len(first) <= 1500
        assert is_finite(first).all()
        assert reports[0].residual_deg is not None
        assert reports[0].is_refined is None
        assert (reports[0].resumed_chunks, reports[1].resumed_chunks) == (0, reports[1].num_chunks)
        assert torch.equal(first.means, again.means)

    def test_a_refinement_needs_cuda(self, load):
        with pytest.raises(RecipeError, match=r"CUDA.*is_refined=false"):
            load(reconstruction={"is_refined": True})


class TestWhatItSaysOfItself:
    def test_native(self, model):
        native = model.native
        recipe = find_recipe("lyra2")
        assert (native.size, native.chunk_frames, native.prompt) == ((recipe.width, recipe.height), 8, None)
        assert native.side_step == 8

    @pytest.mark.parametrize(
        ("video", "steps", "guidance"),
        [({}, 1, 2.0), ({"guidance_scale": 1.0, "num_steps": 3}, 3, 1.0), ({"sampler": "distilled"}, 4, 1.0)],
    )
    def test_provenance(self, load, video, steps, guidance):
        found = load(video).provenance
        assert (found.num_steps, found.guidance, found.precision) == (steps, guidance, "float32")
        assert found.metric_scale_source == "depth_model"
        assert found.negative_prompt is None, "guidance leads away from an embedding, or is off"

    def test_a_negative_prompt_in_words_is_told(self, load):
        model = load({"negative_prompt": "blur"})
        models = replace(model.parts.models, negative_text=None)
        model.parts = replace(model.parts, models=models)
        assert model.provenance.negative_prompt == "blur"


class TestBadInput:
    @pytest.mark.parametrize(("width", "height"), [(60, 48), (64, 24), (8, 8)])
    def test_a_size_that_cannot_work_names_what_can(self, model, photo, width, height):
        with pytest.raises(FrameError, match=rf"multiples of 8 .* at least 32, found {width}x{height}; .* 832x480"):
            model.generate(photo.image, "dolly-in", num_frames=9, prompts=["x"], width=width, height=height)

    def test_the_smallest_size_works(self, model, photo):
        clip = model.generate(photo.image, "dolly-in", num_frames=9, prompts=["x"], width=32, height=32)
        assert clip.frames.shape == (9, 32, 32, 3)

    @pytest.mark.parametrize("num_frames", [0, 1, 8, 16, 82])
    def test_frame_count(self, model, photo, num_frames):
        with pytest.raises(FrameError, match=r"1 \+ 8k frames.*the nearest"):
            model.generate(photo, "dolly-in", num_frames=num_frames, prompts=["x"])

    def test_image_of_no_whole_latents(self, model, photo):
        odd = replace(photo, image=photo.image[:44, :60].clone())
        with pytest.raises(FrameError, match="multiples of 8"):
            model.generate(odd, "dolly-in", num_frames=9, prompts=["x"])

    def test_captions_of_another_number(self, model, photo):
        with pytest.raises(PromptError, match="each of 2 chunks, found 3"):
            model.generate(photo, "dolly-in", num_frames=17, prompts=["a", "b", "c"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"video": {"nmu_steps": 2}}, "video.nmu_steps is unknown; fields of video: .*num_steps"),
            ({"video": {"memory": {"stride": 2}}}, "video.memory.stride is unknown"),
            ({"video": {"num_steps": "many"}}, "video.num_steps should be int, found .many."),
            ({"video": {"num_steps": 0}}, "at least 1"),
            ({"video": {"loras": ["lora-dmd:strong"]}}, "set:strength"),
            ({"reconstruction": {"lifter": "magic"}}, "head.*depth"),
            ({"reconstruction": {"sky": "green"}}, "sky"),
        ],
    )
    def test_choices(self, load, options, message):
        with pytest.raises(RecipeError, match=message):
            load(**options)


class TestWeights:
    @pytest.fixture
    def copied(self, weights, tmp_path):
        return shutil.copytree(weights, tmp_path / "copied")

    def test_missing_sets_are_named_with_what_brings_them(self, load, copied):
        shutil.rmtree(copied / "lyra2-vae")
        shutil.rmtree(copied / "umt5-tokenizer")
        with pytest.raises(WeightsError) as error:
            load(weights=copied)
        message = str(error.value)
        assert "missing: lyra2-vae or wan-vae, umt5-tokenizer" in message
        assert "lyra weights fetch lyra2-vae downloads/lyra2-vae --accept-license nvidia-internal-research" in message
        assert f"lyra weights convert downloads/lyra2-vae/checkpoints/vae/vae.pth {copied}/lyra2-vae" in message
        assert f"lyra weights fetch umt5-tokenizer {copied}/umt5-tokenizer" in message
        assert "lyra2-dit" not in message

    def test_a_set_of_the_same_architecture_stands_in(self, load, copied, model):
        (copied / "lyra2-vae").rename(copied / "wan-vae")
        assert load(weights=copied).weights_digest == model.weights_digest

    def test_loras_are_part_of_the_digest(self, load, model):
        assert load({"loras": ["lora-dmd"]}).weights_digest != model.weights_digest

    def test_a_lora_that_matches_nothing(self, load, copied, tmp_path):
        source = tmp_path / "stranger.safetensors"
        save_file({f"elsewhere.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}, source)
        convert(source, copied / "stranger", "lora", labels=Labels(name="stranger"))
        with pytest.raises(StateDictError, match=r"stranger does not fit.*0 of them in the model"):
            load({"loras": ["stranger"]}, weights=copied)

    @pytest.mark.parametrize("change", ["missing", "extra", "renamed", "shape"])
    def test_keys_that_do_not_fit(self, load, copied, tiny_weights, tmp_path, change):
        tensors = load_file(copied / "lyra2-vae" / "model.safetensors")
        if change != "extra":
            kept = tensors.pop("conv2.weight")
        if change == "renamed":
            tensors["conv_two.weight"] = kept
        if change == "shape":
            tensors["conv2.weight"] = kept[:3].clone()
        if change == "extra":
            tensors["conv3.weight"] = torch.zeros(2)
        save_file(tensors, tmp_path / "other.safetensors")
        shutil.rmtree(copied / "lyra2-vae")
        convert(tmp_path / "other.safetensors", copied / "lyra2-vae", "wan-vae", labels=vae_labels(tiny_weights))
        wanted = {
            "missing": "1 missing",
            "extra": "1 unexpected",
            "renamed": "1 unexpected",
            "shape": "1 of wrong shape",
        }
        with pytest.raises(StateDictError, match=wanted[change]):
            load(weights=copied)

    def test_a_truncated_file(self, load, copied):
        path = copied / "lyra2-dit" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(WeightsError, match="truncated"):
            load(weights=copied)

    def test_a_changed_manifest(self, load, copied):
        path = copied / "lyra2-text" / "manifest.json"
        path.write_text(path.read_text().replace('"num_heads": 2', '"num_heads": 4'))
        with pytest.raises(WeightsError, match="was changed"):
            load(weights=copied)

    def test_a_negative_prompt_of_another_width(self, load, copied, tmp_path):
        save_file({"t5_text_embeddings": torch.zeros(1, 512, 9)}, tmp_path / "other.safetensors")
        shutil.rmtree(copied / "lyra2-negative-prompt")
        convert(tmp_path / "other.safetensors", copied / "lyra2-negative-prompt", "negative-prompt")
        with pytest.raises(WeightsError, match=r"\[1 s 16\] of the negative prompt, found"):
            load(weights=copied)


def vae_labels(tiny_weights) -> Labels:
    from dataclasses import asdict

    return Labels(name="lyra2-vae", config=asdict(tiny_weights.VAE))


def photograph(photo, cameras: CameraPath, from_chunk: int) -> Photograph:
    return Photograph(image=255 - photo.image, camera=cameras[[len(cameras) - 1]], from_chunk=from_chunk)
