"""Groups of a recipe say what the library's settings say, change ids where they change worlds, and only there."""

import json
from dataclasses import asdict

import pytest

from flows.recipes import RECIPES, find_recipe
from lyra_core.configure import configured
from lyra_core.errors import RecipeError
from lyra_core.gaussians.reconstruct import ReconstructionConfig
from lyra_core.gaussians.refine import RefineConfig
from lyra_core.identity import canonical_digest
from lyra_core.mini.config import MINI
from lyra_core.video.rollout_config import FAITHFUL, MENDED
from tasks.recipe import field_names, with_fields
from tasks.recipe_groups import MENDED_VIDEO, MINI_VIDEO, ReconstructionGroup, VideoGroup

# Fixed by the network rather than chosen by a recipe, or without influence on any number.
OF_THE_NETWORK = {
    "conditioning.ray_downsample",
    "conditioning.correspondence.num_blocks",
    "conditioning.correspondence.latent_stride",
    "conditioning.correspondence.downsample",
    "conditioning.warp.num_targets_at_once",
    "conditioning.correspondence.warp.num_targets_at_once",
    "memory.downsample",
    "memory.num_retrieved",
}


def flat(fields, prefix=""):
    found = {}
    for name, value in fields.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def rollout_options(group: VideoGroup) -> dict:
    return {k: v for k, v in group.model_dump(mode="json").items() if k not in ("loras", "captioner")}


@pytest.mark.parametrize(
    ("group", "base", "wanted"),
    [(VideoGroup(), FAITHFUL, FAITHFUL), (MENDED_VIDEO, FAITHFUL, MENDED), (MINI_VIDEO, MINI, MINI)],
)
def test_video_groups_are_the_librarys_presets(group, base, wanted):
    assert configured(base, rollout_options(group)) == wanted
    assert set(flat(rollout_options(group))) == set(flat(asdict(FAITHFUL))) - OF_THE_NETWORK


def test_reconstruction_defaults_are_the_librarys():
    options = ReconstructionGroup().model_dump(mode="json")
    refine = options.pop("refine")
    del options["lifter"], options["is_refined"]
    assert configured(ReconstructionConfig(), options) == ReconstructionConfig()
    assert configured(RefineConfig(), refine) == RefineConfig()


def test_recipes_without_groups_keep_their_ids():
    """The digest of the first release: a change would make every existing world anew."""
    fields = find_recipe("parallax").hashed_fields()
    assert "video" not in fields
    assert "reconstruction" not in fields
    assert canonical_digest(fields)[:16] == "029904f413944cf7"


def other(value):
    """A different value that every field of that kind accepts."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.15
    return None


OF_MANY_STEPS = ("video.num_steps", "video.guidance_scale", "video.negative_prompt")


@pytest.mark.parametrize("recipe", ["mini", "lyra2-fast"])
@pytest.mark.parametrize(("name", "value"), list(zip(OF_MANY_STEPS, ("8", "3", "blurry"), strict=True)))
def test_a_choice_without_effect_is_refused(recipe, name, value):
    with pytest.raises(RecipeError, match=rf"{name} has no effect .*'distilled'.*--set video.sampler=euler"):
        find_recipe(recipe, [f"{name}={value}"])
    assert find_recipe(recipe, [f"{name}={value}", "video.sampler=unipc"]).video.sampler == "unipc"
    assert find_recipe(recipe, [f"{name}={field_names(find_recipe(recipe))[name]}"]) == find_recipe(recipe)


@pytest.mark.parametrize(
    ("recipe", "assignment", "message"),
    [
        ("mini", "width=100", "multiples of 8 pixels .* found 100x128; the model's own size is 224x128"),
        ("mini", "height=16", "at least 32, found 224x16"),
        ("lyra2", "height=476", "found 832x476; the model's own size is 832x480"),
        ("parallax", "num_frames=8081", "num_frames: .*8001, found '8081'"),
        ("parallax", "num_frames=100", r"num_frames must be 1 \+ 80k .* found 100; the nearest are 81 and 161$"),
        ("parallax", "model=paralax", "wanted parallax, mini, lyra2, parallax-da3 or package.module:factory"),
        ("mini", "reconstruction.tier=large", "a tier is one of 100k, 500k, 2m or a positive number, found 'large'"),
        ("mini", "reconstruction.tier=0", "a tier is one of"),
        ("mini", "video.shift=inf", "video.shift: .*finite"),
    ],
)
def test_what_no_world_could_be_made_with_is_told_by_planning(recipe, assignment, message):
    with pytest.raises(RecipeError, match=message) as caught:
        find_recipe(recipe, [assignment])
    assert len(str(caught.value)) < 250


def choices_of(recipe):
    return [name for name in field_names(find_recipe(recipe)) if name.startswith(("video.", "recons"))]


@pytest.mark.parametrize(
    ("recipe_name", "name"), [(recipe, name) for recipe in ("lyra2", "mini") for name in choices_of(recipe)]
)
def test_every_choice_changes_the_id(recipe_name, name):
    # of the student's own sampler these have no effect, and are refused
    needs_steps = recipe_name == "mini" and name in OF_MANY_STEPS
    recipe = find_recipe(recipe_name, ["video.sampler=euler"] if needs_steps else [])
    value = field_names(recipe)[name]
    choices = {
        "video.sampler": ["euler"],
        "video.noise": ["generator", "reference"],
        "video.speed": ["fast"],
        "video.captioner": ["/models/captions"],
        "video.negative_prompt": ["blurry"],
        "video.loras": ["lora-realism-boost:0.4"],
        "video.encoded_prefix": ["4", "5"],
        "video.depth.align": ["overlap", "none"],
        "video.depth.sky": ["drop"],
        "video.conditioning.mask_channels": ["coverage", "ones"],
        "video.conditioning.correspondence.depth_range": ["used", "chunk"],
        "reconstruction.lifter": ["depth", "head"],
        "reconstruction.tier": ["100k", "500k"],
        "reconstruction.sky": ["drop"],
        "reconstruction.cameras": ["requested"],
        "reconstruction.gate": ["1,2"],
        "reconstruction.deviation": ["1,2"],
    }
    if name.endswith(".reliability"):
        choices[name] = ["curvature", "range"]
    if name.endswith(".group_size"):
        choices[name] = ["8"]
    text = next((choice for choice in choices.get(name, []) if choice != str(value)), other(value))
    changed = with_fields(recipe, [f"{name}={text}"])
    assert field_names(changed)[name] != value
    same = canonical_digest(changed.hashed_fields()) == canonical_digest(recipe.hashed_fields())
    assert same == (name == "video.latents_per_window")


def test_exact_speed_is_no_part_of_ids():
    video = find_recipe("lyra2").hashed_fields()["video"]
    assert "speed" not in video
    assert find_recipe("lyra2", ["video.speed=fastest"]).hashed_fields()["video"]["speed"] == "fastest"


def test_set_speaks_dots_none_and_tuples():
    recipe = find_recipe(
        "lyra2",
        [
            "video.num_steps=4",
            "video.conditioning.warp.group_size=none",
            "video.loras=lora-dmd:1.0,lora-detail-enhancer:0.4",
            "reconstruction.tier=120000",
            "reconstruction.gate=1.5,4",
        ],
    )
    assert recipe.video.num_steps == 4
    assert recipe.video.conditioning.warp.group_size is None
    assert recipe.video.loras == ("lora-dmd:1.0", "lora-detail-enhancer:0.4")
    assert recipe.reconstruction.tier == 120000
    assert recipe.reconstruction.gate == (1.5, 4.0)
    assert recipe.video.sampler == "unipc"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("video.nmu_steps=4", "video.num_steps"),
        ("video=mended", "field=value"),
        ("video.memory=4", "field=value"),
        ("video.num_steps=0", "video.num_steps: .*greater"),
        ("video.sampler=ddim", "video.sampler: .*unipc"),
        ("reconstruction.gate=1", "reconstruction.gate"),
    ],
)
def test_what_does_not_fit_is_named(assignment, message):
    with pytest.raises(RecipeError, match=message):
        find_recipe("lyra2", [assignment])


def test_a_recipe_without_the_group_has_none_of_its_fields():
    with pytest.raises(RecipeError, match="field of the recipe"):
        find_recipe("parallax", ["video.num_steps=4"])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_options_are_plain_and_licences_declared(name):
    recipe = find_recipe(name)
    json.dumps(recipe.model_options())
    assert (recipe.weights is not None or recipe.model == "mini") == bool(recipe.weights_licenses)
    assert set(recipe.restricted_licenses) <= set(recipe.weights_licenses)
    assert ("nvidia-internal-research" in recipe.restricted_licenses) == recipe.model.startswith("lyra2")
