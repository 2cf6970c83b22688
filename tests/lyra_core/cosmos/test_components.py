"""What is loaded from a folder, and what is refused there, in one sentence each."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from lyra_core.config.cosmos import CAMERA, IMAGE_STUDENT
from lyra_core.cosmos.checkpoint import read_checkpoint
from lyra_core.cosmos.components import build_scheduler, load_components
from lyra_core.errors import LyraWarning, WeightsError


def test_the_schedule_is_shifted(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, num_steps=4))
    scheduler.set_timesteps(4)
    assert scheduler.config.use_karras_sigmas is False
    assert scheduler.sigmas[0] == pytest.approx(0.999999, abs=1e-5)
    assert scheduler.sigmas[:4].tolist() == pytest.approx([1.0, 0.968, 0.909, 0.770], abs=1e-3)
    flat = build_scheduler(checkpoint, replace(options, flow_shift=1.0))
    flat.set_timesteps(4)
    assert flat.sigmas[3] < 0.4


def test_the_published_spacing_can_be_had(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, flow_shift=1.0, karras_sigmas=True))
    scheduler.set_timesteps(4)
    assert scheduler.sigmas[:4].tolist() == pytest.approx([0.995, 0.974, 0.799, 0.128], abs=1e-3)


def test_another_solver(checkpoint, options):
    scheduler = build_scheduler(checkpoint, replace(options, scheduler="euler"))
    assert type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert scheduler.config.shift == 10.0


def test_networks_have_the_chosen_dtypes_and_time_stays_float32(checkpoint):
    components = load_components(checkpoint, CAMERA, "cpu")
    assert components.transformer.dtype == components.vae.dtype == torch.bfloat16
    time = {p.dtype for name, p in components.transformer.named_parameters() if name.startswith("time_embedder")}
    assert time == {torch.float32}


@pytest.fixture
def copy(checkpoint, tmp_path):
    """copy(harm) -> a checkpoint with a harmed copy of the folder."""

    def made(harm):
        shutil.copytree(checkpoint.folder, tmp_path / "copy")
        harm(tmp_path / "copy")
        return read_checkpoint(tmp_path / "copy")

    return made


def change_tensors(part, change):
    def harm(folder):
        path = folder / part / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        change(tensors, sorted(tensors)[3])
        path.unlink()  # it is linked to the published one
        save_file(tensors, path)

    return harm


def change_json(name, **changes):
    def harm(folder):
        path = folder / name
        fields = json.loads(path.read_text()) | changes
        path.unlink()
        path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))

    return harm


def drop(tensors, name):
    del tensors[name]


def stretch(tensors, name):
    tensors[name] = np.zeros((7, *tensors[name].shape), np.float32)


def spoil(tensors, name):
    tensors[name] = np.full_like(tensors[name], np.nan)


def remove_template(folder):
    (folder / "text_tokenizer" / "chat_template.jinja").unlink(missing_ok=True)
    change_json("text_tokenizer/tokenizer_config.json", chat_template=None)(folder)


def want_code(folder):
    (folder / "text_tokenizer" / "own.py").write_text("import sys\n\nsys.modules['ran'] = sys\n\nclass Own: pass\n")
    change_json(
        "text_tokenizer/tokenizer_config.json",
        tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["own.Own", "own.Own"]},
    )(folder)


def write_pickle(folder):
    tensors = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save({}, tensors.with_suffix(".bin"))
    change_json("transformer/config.json", hidden_size=32)(folder)


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"should hold every tensor of (Cosmos3OmniTransformer|AutoencoderKLWan), missing: \S+; fetch and"),
        (stretch, r"cannot be read as a part of Cosmos 3 \(.*expected shape.*\); check it with `lyra weights verify"),
        (spoil, r"should hold finite numbers, found NaN or infinity in \S+; fetch and"),
    ],
)
def test_harmed_networks(copy, options, part, change, message):
    harmed = copy(change_tensors(part, change))
    with pytest.raises(WeightsError, match=message) as caught:
        load_components(harmed, options, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change_json("transformer/config.json", hidden_size=32), r"transformer cannot be read .*expected shape"),
        (change_json("transformer/config.json", hidden_size="many"), "transformer cannot be read as a part of"),
        (write_pickle, "transformer cannot be read .*expected shape"),
        (lambda folder: shutil.rmtree(folder / "text_tokenizer"), "should hold a tokenizer, found no folder"),
        (lambda folder: (folder / "text_tokenizer" / "tokenizer.json").write_text("{"), "text_tokenizer cannot be"),
        (remove_template, "should hold the tokenizer of Cosmos 3, found one without a chat template"),
        (want_code, "text_tokenizer cannot be read .*contains custom code"),
    ],
)
def test_harmed_folders(copy, options, harm, message):
    def replaced(folder):
        for path in [path for path in folder.rglob("*.json") if path.is_file()]:
            text = path.read_bytes()
            path.unlink()
            path.write_bytes(text)
        harm(folder)

    with pytest.raises(WeightsError, match=message) as caught:
        load_components(copy(replaced), options, "cpu")
    assert "\n" not in str(caught.value)
    assert "ran" not in sys.modules
    assert torch.get_default_dtype() == torch.float32, "the library leaves its own behind where it fails"


def test_tensors_that_nobody_asked_for_are_left_out_with_a_warning(copy, options):
    def more(tensors, _):
        tensors["zzz"] = np.zeros(3, np.float32)

    more_tensors = copy(change_tensors("transformer", more))
    with pytest.warns(LyraWarning, match="does not have, and that are left out: zzz"):
        load_components(more_tensors, options, "cpu")


def test_other_schedules(copy, checkpoint):
    other = copy(change_json("scheduler/scheduler_config.json", prediction_type="epsilon"))
    with pytest.raises(WeightsError, match="flow prediction with flow sigmas, found prediction_type='epsilon'"):
        build_scheduler(other, CAMERA)
    with pytest.raises(WeightsError, match=r"student's schedule .*, found 'UniPCMultistepScheduler'; fetch it again"):
        build_scheduler(replace(checkpoint, levels=(1.0, 0.5)), IMAGE_STUDENT)
