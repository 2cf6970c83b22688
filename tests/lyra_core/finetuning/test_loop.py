"""Fine-tuning of the released code path on real files: steps, checkpoints, what is left behind, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lyra_core.config.rollout import REFERENCE
from lyra_core.errors import ConfigError, PromptError, StateDictError, TrainingError, UnsafePickleError, WeightsError
from lyra_core.finetuning.caption_store import CaptionStore
from lyra_core.finetuning.clip_samples import ClipSamples, SampleConfig
from lyra_core.finetuning.dataset import OwnClips
from lyra_core.finetuning.fsdp import fill
from lyra_core.finetuning.learner import Learner
from lyra_core.finetuning.loop import FinetuneConfig, finetune
from lyra_core.finetuning.lora import LoraConfig
from lyra_core.finetuning.networks import TrainedPart, build_debug, first_layers
from lyra_core.finetuning.trained_weights import save_trained
from lyra_core.procedural.chunks import ChunkConfig, ChunkMaker
from lyra_core.procedural.clip_maker import MixConfig
from lyra_core.train_commands.app import main
from lyra_core.training.data_parallel import Replicas
from lyra_core.training.flow import FlowConfig
from lyra_core.training.run import TrainingRun
from lyra_core.weights.adapter import open_weights
from lyra_core.world_models.networks import load_dit

QUICK = FinetuneConfig(steps=2, learning_rate=1e-2, warmup_steps=0, log_every=1)


def samples_of(folder, trained, **changes):
    chunks = ChunkConfig(memory_drop=0.1, depth_noise=0.0, context_latents=None)
    rollout = replace(REFERENCE, encoded_prefix=2, latents_per_window=8)
    maker = ChunkMaker(trained.vae, trained.networks.dit.config.history_layout, rollout, chunks)
    config = replace(SampleConfig(clip_frames=17), **changes)
    return ClipSamples(OwnClips(folder, (32, 48)), maker, config, "cpu")


def run(folder, out, config=QUICK, part=None, keep_at=None, where=None, **changes):
    """Train on a folder; `keep_at` puts the checkpoint of so many steps aside, as out/kept; `where` is of the run."""
    where = where or {}
    trained = build_debug(part or TrainedPart(), "cpu")
    samples = samples_of(folder, trained, **changes)
    learner = Learner(samples, FlowConfig(), 0)

    def loss_of(networks, step):
        if step == keep_at:
            shutil.copytree(out / "checkpoint", out / "kept")
        return learner(networks, step)

    try:
        result = finetune(trained.networks, loss_of, config, TrainingRun(out_dir=out, **where))
    finally:
        samples.close()
    return trained, result


def state(trained):
    return {name: parameter.detach().clone() for name, parameter in trained.networks.named_parameters()}


@pytest.fixture(scope="module")
def unbroken(clip_data, tmp_path_factory):
    """Three steps on the files, and the checkpoint after two of them."""
    out, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: sums depend on it
    trained, result = run(clip_data, out, replace(QUICK, steps=3, checkpoint_every=2), keep_at=2)
    torch.set_num_threads(threads)
    return out, state(trained), result


def test_steps_move_everything_and_are_logged(unbroken):
    out, after, result = unbroken
    before = state(build_debug(TrainedPart(), "cpu"))
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows == result.metrics
    assert all(row["gradient_norm"] > 0 for row in rows)


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(unbroken, clip_data, tmp_path):
    out, whole, _ = unbroken
    trained, result = run(clip_data, tmp_path, replace(QUICK, steps=3), where={"resume_from": out / "kept"})
    assert [row["step"] for row in result.metrics] == [3]
    for name, value in state(trained).items():
        assert torch.equal(value, whole[name]), name


def test_a_paused_run_is_finished_as_the_unbroken_one(unbroken, clip_data, tmp_path):
    _, whole, _ = unbroken
    steps = replace(QUICK, steps=3)
    _, paused = run(clip_data, tmp_path, steps, where={"pause_at": 1.0})
    assert paused.step == 1
    trained, result = run(clip_data, tmp_path, steps, where={"resume_from": tmp_path / "checkpoint"})
    assert [row["step"] for row in result.metrics] == [2, 3]
    for name, value in state(trained).items():
        assert torch.equal(value, whole[name]), name


def test_a_checkpoint_of_another_choice_is_refused(unbroken, clip_data, tmp_path):
    out, _, _ = unbroken
    part = TrainedPart(lora=LoraConfig(rank=2))
    with pytest.raises(StateDictError, match="does not fit its model"):
        run(clip_data, tmp_path, part=part, where={"resume_from": out / "kept"})
    with pytest.raises(WeightsError, match="is none"):
        run(clip_data, tmp_path, where={"resume_from": tmp_path / "nothing"})


def test_a_checkpoint_that_would_run_code_is_refused(unbroken, clip_data, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    folder = Path(shutil.copytree(unbroken[0] / "kept", tmp_path / "checkpoint"))
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UnsafePickleError, match=r"builtins\.print"):
        run(clip_data, tmp_path, where={"resume_from": folder})


def test_frozen_parameters_stay(clip_data, tmp_path):
    part = TrainedPart(freeze=("*.ffn.*", "head.*"), layers=1)
    before = state(build_debug(part, "cpu"))
    trained, _ = run(clip_data, tmp_path, replace(QUICK, steps=1), part=part)
    after = state(trained)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if ".ffn." in name or ".head." in name}
    assert sum("blocks." in name for name in still) == 4
    with pytest.raises(ConfigError, match="no parameter matches the pattern 'nothing'"):
        build_debug(TrainedPart(freeze=("nothing",)), "cpu")
    with pytest.raises(ConfigError, match="nothing is left to train"):
        build_debug(TrainedPart(freeze=("*",)), "cpu")


def broken_loss(networks, step):
    first = next(p for p in networks.parameters() if p.requires_grad)
    loss = first.square().sum() * (float("nan") if step == 1 else 1.0)
    return {"loss": loss}


def test_a_gradient_that_is_not_finite_stops_before_the_weights(tmp_path):
    trained = build_debug(TrainedPart(), "cpu")
    with pytest.raises(TrainingError, match="gradient of step 1 has norm nan"):
        finetune(trained.networks, broken_loss, QUICK, TrainingRun(out_dir=tmp_path))
    assert all(torch.isfinite(p).all() for p in trained.networks.parameters())
    result = finetune(trained.networks, broken_loss, replace(QUICK, non_finite="zero"), TrainingRun(out_dir=tmp_path))
    assert [row["gradient_norm"] > 0 for row in result.metrics] == [True, False]
    assert all(torch.isfinite(p).all() for p in trained.networks.parameters())


def test_the_rate_is_that_of_the_released_training():
    config = FinetuneConfig(steps=1)
    assert config.rate(0) == pytest.approx(3e-11)
    assert config.rate(50) == pytest.approx(3e-5 * 0.495, rel=1e-4)
    assert config.rate(200_000) == pytest.approx(3e-5 * 0.7)
    assert config.rate(900_000) == pytest.approx(3e-5 * 0.4)
    with pytest.raises(ConfigError, match="at least 1"):
        FinetuneConfig(steps=0)


def test_kinds_and_chunks_are_shared_and_clips_are_not(clip_data):
    trained = build_debug(TrainedPart(), "cpu")
    samples = samples_of(clip_data, trained, clip_frames=33, batch=2)
    other = ClipSamples(samples.clips, samples.maker, samples.config, "cpu", Replicas(rank=1, count=2))
    drawn = [(samples.draw(step), other.draw(step)) for step in range(200)]
    assert all((a.kind, a.chunk) == (b.kind, b.chunk) for a, b in drawn)
    assert any(a.clips != b.clips for a, b in drawn)
    kinds = [a.kind for a, _ in drawn]
    shares = [kinds.count(kind) / 200 for kind in ("i2v", "plain", "augmented")]
    assert shares == pytest.approx([0.15, 0.5, 0.35], abs=0.1)
    chunks = {kind: {a.chunk for a, _ in drawn if a.kind == kind} for kind in kinds}
    assert chunks == {"i2v": {0}, "plain": {0, 1, 2, 3}, "augmented": {1, 2, 3}}
    with pytest.raises(ConfigError, match="at least 9"):
        samples_of(clip_data, trained, clip_frames=8)


def test_samples_are_a_function_of_the_step(clip_data):
    trained = build_debug(TrainedPart(), "cpu")
    plain = MixConfig(i2v=0.0, plain=1.0, augmented=0.0)
    first, second = (samples_of(clip_data, trained, mix=plain) for _ in range(2))

    def predict(rows):
        return rows.target

    first.rows(0, predict)
    # the one has read ahead, the other has not
    for a, b in zip(vars_of(first.rows(1, predict)), vars_of(second.rows(1, predict)), strict=True):
        assert torch.equal(a, b)


def vars_of(rows):
    return [getattr(rows, name) for name in rows.__dataclass_fields__]


def test_weights_of_a_run_are_loaded_as_a_set(clip_data, tmp_path):
    trained = build_debug(TrainedPart(layers=1), "cpu")
    home = save_trained(trained.networks.dit, tmp_path / "weights", {})
    loaded = load_dit(home, "cpu")
    assert loaded.config == trained.networks.dit.config
    for name, value in loaded.named_parameters():
        assert torch.equal(value, trained.networks.dit.get_parameter(name).bfloat16().float()), name
    # a second run starts from them, with fewer blocks
    with pytest.raises(StateDictError, match="has 1 blocks, 2 are asked for"):
        first_layers(open_weights(home), 2)
    fill(build_debug(TrainedPart(layers=1), "cpu").networks.dit, first_layers(open_weights(home), 1))


def test_a_lora_of_a_run_is_a_set_beside_links_to_the_others(tmp_path):
    base = tmp_path / "base"
    trained = build_debug(TrainedPart(), "cpu")
    home = save_trained(trained.networks.dit, base, {})
    tuned = build_debug(TrainedPart(lora=LoraConfig(rank=2)), "cpu")
    for name, parameter in tuned.networks.dit.named_parameters():
        if ".lora_B" in name:
            parameter.data.fill_(0.05)
    out = tmp_path / "own"
    lora = save_trained(tuned.networks.dit, out, {"dit": home}, lora_name="lora-own")
    assert (out / "lyra2-dit").resolve() == home.resolve()
    merged = load_dit(out / "lyra2-dit", "cpu", [(lora, 1.0)])
    plain = load_dit(home, "cpu")
    changed = [n for n, p in merged.named_parameters() if not torch.equal(p, plain.get_parameter(n))]
    assert len(changed) == 24
    with pytest.raises(ConfigError, match="a name of its own"):
        save_trained(tuned.networks.dit, out, {}, lora_name="lyra2-dit")


def test_captions_are_embedded_once(tmp_path):
    calls = []

    def encode(captions):
        calls.append(captions)
        embedding = torch.zeros(1, 8, 4)
        embedding[0, : len(captions[0])] = 1.5
        return embedding.bfloat16()

    store = CaptionStore(tmp_path, 8, torch.full((1, 5, 4), -1.0))
    assert store.missing(["abc", "", "abc", "de"]) == ["abc", "de"]
    store.add(["abc", "de"], encode)
    again = CaptionStore(tmp_path, 8, torch.full((1, 5, 4), -1.0))
    assert again.missing(["abc", "de"]) == []
    found = again(["abc", "", "de"])
    assert found[..., 0].tolist() == [[1.5] * 3 + [0] * 5, [-1] * 5 + [0] * 3, [1.5] * 2 + [0] * 6]
    with pytest.raises(PromptError, match="'xyz' was not embedded"):
        again(["xyz"])
    with pytest.raises(WeightsError, match="another text encoder"):
        CaptionStore(tmp_path, 8, torch.zeros(1, 5, 6))(["abc"])
    assert calls == [["abc"], ["de"]]


def test_the_commands(clip_data, own_data, tmp_path):
    assert main(["check-data", str(clip_data), "--decode"]) == 0
    (own_data / "captions" / "slow.json").write_text("{}")
    with pytest.raises(ConfigError, match="1 of 2 clips"):
        main(["check-data", str(own_data)])
    out = tmp_path / "out"
    options = ["--data", str(clip_data), "--out", str(out), "--steps", "1", "--lora", "2", "--clip-frames", "17"]
    assert main(["lyra2", "--debug", *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["steps"] == 1
    assert Path(summary["weights"]).joinpath("manifest.json").is_file()
