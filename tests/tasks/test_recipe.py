"""Recipes: their fields change ids where they change worlds and only there, and keep the ids that worlds have."""

import json
import re

import pytest
from pydantic import ValidationError

from flows.recipes import RECIPES, find_recipe
from lyra_core.config.geometry import GeometryOptions
from lyra_core.errors import RecipeError
from lyra_core.identity import canonical_digest
from tasks.recipe import OF_MANY_STEPS, WORLD_FILES, Recipe, field_names, with_fields

# What each recipe puts into ids, without the group `geometry` and its files, digested at commit 89b88d7
# (those of Cosmos 3 and mini-hd when they were added).
IDS = {
    "cosmos3-nano": "104a456dd3bb9941",
    "cosmos3-nano-depth": "ea1d3d2b2bc9c6a1",
    "cosmos3-super": "4806627e862d6e56",
    "cosmos3-super-i2v": "b03093dac4983622",
    "cosmos3-super-i2v-4step": "015adc44dd423112",
    "lyra2": "fd39bb93dd091e8e",
    "lyra2-fast": "b6b0847af5837714",
    "lyra2-corrected": "e052e8efaf348c22",
    "mini": "eff045c2ecd6a3f9",
    "mini-hd": "9fe78399290d9705",
    "parallax": "029904f413944cf7",
    "parallax-480p": "bd30d577109411a4",
    "parallax-da3": "4308c326530325ee",
}


# The same with that group, since algorithm version 3: a change would make every existing world anew.
IDS_WITH_GEOMETRY = {
    "cosmos3-nano": "9c1b169990d6e48b",
    "cosmos3-nano-depth": "0bac5812c6eaab29",
    "cosmos3-super": "06c6888e7d6c4378",
    "cosmos3-super-i2v": "ba439483e88f38b4",
    "cosmos3-super-i2v-4step": "6482639a886b4ef5",
    "lyra2": "315c521104e0309e",
    "lyra2-fast": "8cc868e69dbbc595",
    "lyra2-corrected": "86f73596d12b5050",
    "mini": "374fb50fcc4fda41",
    "mini-hd": "2d010ab5d06bf924",
    "parallax-da3": "395e56d1fff09101",
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_keep_their_ids(name):
    whole = canonical_digest(find_recipe(name).hashed_fields())[:16]
    assert whole == IDS_WITH_GEOMETRY.get(name, IDS[name])
    without = find_recipe(name, [f"artifacts={','.join(WORLD_FILES)}", "geometry=none"])
    assert canonical_digest(without.hashed_fields())[:16] == IDS[name]


def test_geometry_is_left_out_or_taken_in_by_name():
    taken = find_recipe("parallax", ["geometry=default", "geometry.needs_floor=true", "artifacts=ply,mjcf,mesh"])
    assert taken.geometry == GeometryOptions(needs_floor=True)
    with pytest.raises(RecipeError, match="artifact 'mjcf' is made from the geometry, which this recipe leaves out"):
        find_recipe("mini", ["geometry=none"])
    with pytest.raises(RecipeError, match="views"):
        find_recipe("mini", ["geometry.views=0"])
    with pytest.raises(RecipeError, match="field=value"):
        find_recipe("mini", ["video=none"])


def test_fields_that_are_set_keep_their_ids():
    assignments = [
        "video.num_steps=4",
        "video.conditioning.warp.group_size=none",
        "video.loras=lora-dmd:1.0,lora-detail-enhancer:0.4",
        "reconstruction.tier=120000",
        "reconstruction.gate=1.5,4",
        "video.speed=fast",
        "geometry=none",
    ]
    fields = find_recipe("lyra2", assignments).hashed_fields()
    assert canonical_digest(fields)[:16] == "a8d88850c28e2878"


def test_a_recipe_without_groups_has_none_in_its_id():
    fields = find_recipe("parallax").hashed_fields()
    assert "video" not in fields
    assert "reconstruction" not in fields


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_plan_gives_the_recipe_back(name):
    recipe = find_recipe(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_what_a_network_fixes_is_no_field_of_a_recipe():
    fields = find_recipe("lyra2").model_dump()
    fields["video"]["memory"]["num_retrieved"] = 3
    with pytest.raises(ValidationError, match=r"video.memory.num_retrieved\n.*Unexpected"):
        Recipe.model_validate(fields)


def other(value):
    """A different value that every field of that kind accepts."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.15
    return None


VALUES = {"num_steps": "8", "guidance_scale": "3", "negative_prompt": "blurry"} | {
    "guidance_first_noise": "0.9",
    "guidance_last_noise": "0.1",
    "batched_guidance": "true",
}
STUDENT_LACKS = tuple(f"video.{name}" for name in OF_MANY_STEPS)


@pytest.mark.parametrize("recipe", ["mini", "lyra2-fast"])
@pytest.mark.parametrize(("name", "value"), [(f"video.{n}", v) for n, v in VALUES.items()])
def test_a_choice_without_effect_is_refused(recipe, name, value):
    assert name in STUDENT_LACKS
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
        (
            "parallax",
            "model=paralax",
            "wanted parallax, mini, lyra2, parallax-da3, cosmos3-nano, .* or package.module:factory",
        ),
        ("mini", "reconstruction.tier=large", "a tier is one of 100k, 500k, 2m or a positive number, found 'large'"),
        ("mini", "reconstruction.tier=0", "a tier is one of"),
        ("cosmos3-nano", "num_frames=81", r"num_frames must be 1 \+ 60k .* found 81; the nearest are 61 and 121$"),
        ("cosmos3-nano", "width=848", "found 848x480; the nearest are 1280x720, .* the model's own is 832x480"),
        ("cosmos3-nano", "cosmos.chunk_frames=62", "multiple of 4, .*found 62; the nearest are 60 and 64"),
        ("cosmos3-nano", "fps=24", "cosmos.fps is the rate that the network is told .* found 30 and 24; set both$"),
        ("cosmos3-nano", "model=lyra2", r"model 'lyra2' takes no fields cosmos\.\*, which this recipe has; take a"),
        ("mini", "model=parallax", r"model 'parallax' takes no fields video\.\*, which this recipe has; take a"),
        ("mini", "prompt=a\udcff", r"--set wants UTF-8 text, found other bytes in 'prompt=a\\udcff'"),
        ("cosmos3-nano", "cosmos.mode=verbs", "cosmos.mode: .*found 'verbs'"),
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
    needs_steps = recipe_name == "mini" and name in STUDENT_LACKS
    recipe = find_recipe(recipe_name, ["video.sampler=euler"] if needs_steps else [])
    value = field_names(recipe)[name]
    choices = {
        "video.sampler": ["euler"],
        "video.noise": ["generator", "reference"],
        "video.speed": ["fast"],
        "video.super_resolution": ["transfer"],
        "video.placement": ["resident"],
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
    if name == "video.super_resolution" and recipe_name == "lyra2":
        return  # only mini has one; another value is refused
    if name.endswith(".reliability"):
        choices[name] = ["curvature", "range"]
    if name.endswith(".group_size"):
        choices[name] = ["8"]
    text = next((choice for choice in choices.get(name, []) if choice != str(value)), other(value))
    changed = with_fields(recipe, [f"{name}={text}"])
    assert field_names(changed)[name] != value
    same = canonical_digest(changed.hashed_fields()) == canonical_digest(recipe.hashed_fields())
    assert same == (name in ("video.latents_per_window", "video.placement"))


COSMOS_RECIPES = [name for name in RECIPES if name.startswith("cosmos3-")]


@pytest.mark.parametrize("recipe_name", COSMOS_RECIPES)
def test_every_choice_of_cosmos_changes_the_id_or_is_refused(recipe_name):
    recipe = find_recipe(recipe_name)
    others = {
        "mode": ("camera", "image"),
        "scheduler": ("unipc", "euler"),
        "caption_form": ("plain", "json"),
        "view_point": ("wrist_view",),
        "memory": ("replace",),
        "negative_prompt": ("people",),
        "calibration": ("0123456789ab",),
        "captioner": ("/models/captions",),
        "library": ("diffusers 0.42.9",),
        "chunk_frames": ("40",),
        "overlap_latents": ("1", "2"),
        "transformer_dtype": ("float32",),
        "vae_dtype": ("float32",),
        "guidance_scale": ("4.5",),
        "control_guidance": ("2.5",),
        "replace_share": ("0.75",),
        "max_correction_share": ("0.3",),
        "depth.align": ("none",),
        "depth.sky": ("drop",),
    }
    ids, refusals = {canonical_digest(recipe.hashed_fields())}, {}
    names = [name for name in field_names(recipe) if name.startswith("cosmos.")]
    for name in names:
        value = field_names(recipe)[name]
        text = next((t for t in others.get(name[7:], ()) if t != str(value)), other(value))
        try:
            changed = with_fields(recipe, [f"{name}={text}", *([f"fps={text}"] if name == "cosmos.fps" else [])])
        except RecipeError as error:
            refusals[name] = str(error)
        else:
            assert field_names(changed)[name] != value
            ids.add(canonical_digest(changed.hashed_fields()))
    assert len(ids) == 1 + len(names) - len(refusals), "no two choices have one id"
    assert {name for name, said in refusals.items() if not re.search("belongs to|has no effect", said)} == set()
    assert len(refusals) < len(names) / 2


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
        ("video=corrected", "field=value"),
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
def test_options_are_plain_and_licenses_declared(name):
    recipe = find_recipe(name)
    json.dumps(recipe.model_options())
    assert (recipe.weights is not None or recipe.model == "mini") == bool(recipe.weights_licenses)
    assert set(recipe.restricted_licenses) <= set(recipe.weights_licenses)
    assert ("nvidia-internal-research" in recipe.restricted_licenses) == recipe.model.startswith("lyra2")
