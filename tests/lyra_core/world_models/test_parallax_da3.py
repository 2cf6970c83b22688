"""Reconstruction from Apache-2.0 depth alone: the baseline's video, splats from pixels."""

import pytest
import torch

from flows.recipes import find_recipe
from lyra_core.errors import RecipeError
from lyra_core.gaussians.prune import is_finite
from lyra_core.world_models.load import load_model
from lyra_core.world_models.parallax_da3 import load_parallax_da3
from lyra_core.world_models.protocol import WorldModel


def test_the_baselines_video_is_lifted_by_two_networks(weights, photo, tmp_path):
    model = load_parallax_da3(weights=weights, reconstruction={"tier": 1500, "color_passes": 1})
    assert isinstance(model, WorldModel)
    recipe = find_recipe("parallax-da3")
    assert model.native.size == (recipe.width, recipe.height)
    assert model.provenance.metric_scale_source == "relative", "its cameras stand in the baseline's scale"
    clip = model.generate(photo, "truck-right", num_frames=5)
    assert torch.equal(clip.frames, load_model("parallax").generate(photo, "truck-right", num_frames=5).frames)
    reports = []
    gaussians = model.reconstruct(clip, chunk_dir=tmp_path, on_report=reports.append)
    assert is_finite(gaussians).all()
    assert reports[0].lifter.startswith("depth-")
    assert reports[0].residual_deg is not None


def test_the_head_cannot_be_asked_of_networks_without_one(weights, photo):
    model = load_parallax_da3(weights=weights, reconstruction={"lifter": "head"})
    clip = model.generate(photo, "truck-right", num_frames=3)
    with pytest.raises(Exception, match="Gaussian head"):
        model.reconstruct(clip)


def test_a_refinement_needs_cuda(weights):
    with pytest.raises(RecipeError, match="CUDA"):
        load_parallax_da3(weights=weights, reconstruction={"is_refined": True})
