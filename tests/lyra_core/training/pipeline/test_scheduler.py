"""Steps run in order of their needs on the GPUs there are, are tried again, skipped, paused and copied away."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lyra_core.errors import ConfigError
from lyra_core.training.pipeline.scheduler import Pipeline, PipelineConfig
from lyra_core.training.pipeline.step import Step, last_line, telling_line

CONFIG = PipelineConfig(gpus=("0", "1"), poll_s=0.01, reserve_s=0.0, least_s=0.0)
TRAINING = """
import json, sys, time
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(options["--out"])
done = float((Path(options["--resume"])).read_text()) if "--resume" in options else 0.0
(out / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
end = float(options.get("--pause-at", "inf"))
while done < 1 and time.time() < end:
    time.sleep(0.05)
    done += 0.05 / (60 * float(options["--minutes"]))
    (out / "full.pt").write_text(str(done))
(out / "state.json").write_text(json.dumps({"progress": min(1.0, done)}))
(out / "metrics.jsonl").write_text(json.dumps({"step": 3, "elapsed_s": 1.0, "psnr_worlds": 31.25}) + "\\n")
(out / "weights.safetensors").write_bytes(b"w" * 2500)
(out / "summary.json").write_text("{}")
"""


def says(text, *, seconds=0.0, log="{out}/order", **fields):
    """A step that notes its beginning and its end."""
    code = f"""
        import os, time
        note = lambda word: open(r"{log}", "a").write(word + " {text} " + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
        note("begin")
        time.sleep({seconds})
        note("end")
    """
    return Step(name=text, commands=(("-c", textwrap.dedent(code)),), **fields)


def run(steps, out, **changes):
    said = []
    pipeline = Pipeline(steps, out, replace(CONFIG, **changes), said.append)
    return pipeline.run(), "\n".join(said)


def noted(out):
    return [line.split() for line in (out / "order").read_text().splitlines()]


def test_stages_start_after_what_they_need_on_gpus_of_their_own(tmp_path):
    steps = [
        says("views"),
        says("first", seconds=0.3, gpus=1, after=("views",)),
        says("second", seconds=0.3, gpus=1, after=("views",)),
        says("both", gpus=None, after=("views",)),
        says("last", after=("first", "both")),
    ]
    status, said = run(steps, tmp_path)
    lines = noted(tmp_path)
    assert status == 0
    assert [line[:2] for line in lines[:2]] == [["begin", "views"], ["end", "views"]]
    assert len(lines[0]) == 2  # sees no GPU
    assert {line[1] for line in lines[2:4]} == {"first", "second"}
    assert {line[2] for line in lines[2:4]} == {"0", "1"}
    assert [line[1:] for line in lines[6:8]] == [["both", "0,1"]] * 2
    assert lines[-1][1] == "last"
    assert "step both starts on GPUs 0,1" in said


def test_more_than_the_least_is_taken_only_of_what_others_leave(tmp_path):
    """A step that can use more GPUs does not keep others waiting, nor those that wait for a step without GPUs."""
    wide = says("wide", seconds=0.5, gpus=3, least=1)
    assert run([wide], tmp_path / "alone", gpus=("0", "1", "2", "3"))[0] == 0
    assert noted(tmp_path / "alone")[0][2] == "0,1,2"
    run([wide, says("other", gpus=2)], tmp_path / "ready", gpus=("0", "1", "2", "3"))
    assert sorted(line[2] for line in noted(tmp_path / "ready") if line[0] == "begin") == ["0,3", "1,2"]
    soon = [says("paths", seconds=0.2), wide, says("other", gpus=3, after=("paths",))]
    run(soon, tmp_path / "soon", gpus=("0", "1", "2", "3"))
    assert [line[1] for line in noted(tmp_path / "soon")].index("other") < 5
    assert ["begin", "other", "1,2,3"] in noted(tmp_path / "soon")


def test_finished_stages_are_skipped_and_changed_ones_run_again_with_what_needs_them(tmp_path):
    steps = [says("a"), says("b", after=("a",)), says("c")]
    run(steps, tmp_path)
    before = len(noted(tmp_path))
    status, said = run(steps, tmp_path)
    assert (status, len(noted(tmp_path))) == (0, before)
    assert "step b was finished before: skipped" in said
    steps[0] = says("a", seconds=0.01)
    run(steps, tmp_path)
    assert [line[1] for line in noted(tmp_path)[before:]] == ["a", "a", "b", "b"]
    assert (tmp_path / "earlier" / "a" / "done.json").is_file()
    assert json.loads((tmp_path / "b" / "done.json").read_text())["inputs"].keys() == {"a"}


def test_a_folder_may_be_moved(tmp_path):
    steps = [says("a"), says("b", after=("a",))]
    run(steps, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert "step b was finished" in run(steps, tmp_path / "there")[1]
    assert len(noted(tmp_path / "there")) == 4


def test_other_content_of_the_weights_to_begin_with_is_another_stage(tmp_path):
    steps = [says("a", log="{out}/order"), Step(name="b", commands=(("-c", "'{start}'"),))]
    places = {"start": "one"}
    run(steps, tmp_path, places=places, digests={"start": "1"})
    assert "step b was finished" in run(steps, tmp_path, places={"start": "two"}, digests={"start": "1"})[1]
    said = run(steps, tmp_path, places=places, digests={"start": "2"})[1]
    assert "step a was finished" in said
    assert "step b starts" in said


def test_what_is_there_is_used_as_it_is(tmp_path):
    paths = says("paths", makes="{views}/views.npz", is_kept=True)
    (tmp_path / "views.npz").touch()
    status, said = run([paths, says("next", after=("paths",))], tmp_path / "out", places={"views": str(tmp_path)})
    assert (status, [line[1] for line in noted(tmp_path / "out")]) == (0, ["next", "next"])
    assert "step paths was finished before" in said


def test_a_stage_that_fails_is_tried_once_more_and_holds_up_only_what_needs_it(tmp_path):
    fails = Step(name="fails", commands=(("-c", "print('one'); raise ValueError('no such thing')"),), gpus=1)
    steps = [fails, says("needs", after=("fails",)), says("further", after=("needs",)), says("other")]
    status, said = run(steps, tmp_path)
    log = tmp_path / "log" / "fails.log"
    assert status == 1
    assert f"step fails failed in 2 of 2 tries: exit status 1, see {log}, which ends with: ValueError: no such" in said
    assert log.read_text().count("raise ValueError") >= 2
    assert {line[1] for line in noted(tmp_path)} == {"other"}
    assert "waits for fails" in said
    assert "waits for needs" in said


def test_a_second_try_can_succeed(tmp_path):
    code = "import pathlib, sys; p = pathlib.Path(r'{out}/seen'); sys.exit(p.touch() or 3 if not p.exists() else 0)"
    status, said = run([Step(name="shy", commands=(("-c", code),)), says("next", after=("shy",))], tmp_path)
    assert status == 0
    assert "try 2 of 2" in said
    assert noted(tmp_path)[-1][1] == "next"


def test_of_several_commands_the_first_that_fails_ends_the_stage(tmp_path):
    good, bad = ("-c", "print('fine')"), ("-c", "raise SystemExit('enough')")
    status, said = run([Step(name="pack", commands=(good, bad, good))], tmp_path)
    assert status == 1
    assert "which ends with: enough" in said
    assert (tmp_path / "log" / "pack.log").read_text().count("\nfine\n") == 2


def training(tmp_path, minutes, **fields):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    return Step(name="train", commands=((str(script),),), gpus=1, minutes=minutes, **fields)


def test_a_paused_training_goes_on_from_its_checkpoint(tmp_path):
    steps = [training(tmp_path, 0.02), says("next", after=("train",))]
    out, kept = tmp_path / "out", tmp_path / "kept"
    status, said = run(steps, out, pause_after_s=1.0, reserve_s=0.4, sync_to=kept, part_bytes=1000)
    assert status == 0
    assert "step train paused" in said
    assert "the same command goes on" in said
    assert not (out / "train" / "done.json").exists()
    assert sorted(path.name for path in (kept / "train").glob("weights*")) == [
        f"weights.safetensors.part0{i}" for i in range(3)
    ]
    assert b"".join(p.read_bytes() for p in sorted((kept / "train").glob("weights*"))) == b"w" * 2500
    assert {"summary.json", "metrics.jsonl", "begun.json"} <= {path.name for path in (kept / "train").iterdir()}
    assert not (kept / "train" / "full.pt").exists()
    status, said = run(steps, out, sync_to=kept)
    assert status == 0
    assert "from its checkpoint at" in said
    assert "psnr_worlds 31.25" in said
    calls = (out / "train" / "calls").read_text().splitlines()
    assert ["--resume" in call for call in calls] == [False, True]
    assert "--pause-at" in calls[0]
    assert [path.name for path in (kept / "train").glob("weights*")] == ["weights.safetensors"]
    assert (kept / "log" / "train.log").is_file()


def test_a_training_with_other_arguments_begins_anew(tmp_path):
    out = tmp_path / "out"
    run([training(tmp_path, 0.05)], out, pause_after_s=0.6, reserve_s=0.3)
    run([training(tmp_path, 0.002)], out)
    assert "--resume" not in (out / "train" / "calls").read_text()
    assert "--pause-at" in (out / "earlier" / "train" / "calls").read_text()


def test_a_training_that_fails_goes_on_from_its_checkpoint(tmp_path):
    step = training(tmp_path, 0.002)
    code = (tmp_path / "training.py").read_text()
    crash = 'if "--resume" not in options: (out / "full.pt").write_text("0.9"); sys.exit("lost")\n'
    (tmp_path / "training.py").write_text(code.replace("end = ", crash + "end = "))
    status, said = run([step], tmp_path / "out")
    assert status == 0
    assert "ends with: lost" in said
    assert "from its checkpoint at 0%, try 2 of 2" in said


def test_of_torchruns_report_the_reason_is_told(tmp_path):
    """Its own report ends the log and says only that a process ended."""
    report = "\n".join(
        [
            "W1127 23:33:26.1 12296 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process signal",
            "E1127 23:33:26.2 12296 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1)",
            "Traceback (most recent call last):",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            "=" * 60,
        ]
    )
    log = tmp_path / "log"
    log.write_text(f"earlier try\nOSError: earlier\n{'-' * 9}\n")
    start = log.stat().st_size
    log.write_text(log.read_text() + f"step 1\n23:33:24 paths are no file\n{report}\n")
    assert telling_line(log, start) == "23:33:24 paths are no file"
    log.write_text(f"[rank1]: Traceback\n[rank1]: torch.OutOfMemoryError: CUDA out of memory.\n[rank0]: x\n{report}")
    assert telling_line(log) == "torch.OutOfMemoryError: CUDA out of memory."
    log.write_text("loading 10%\rloading 90%\n\n====\n")
    assert (last_line(log), telling_line(log)) == ("loading 90%", "loading 90%")
    assert last_line(tmp_path / "none") == "nothing was said"


def test_a_training_without_weights_is_not_finished(tmp_path):
    status, said = run([Step(name="empty", commands=(("-c", "pass"),), minutes=1.0)], tmp_path)
    assert status == 1
    assert "it ended without weights.safetensors, summary.json" in said


def test_stages_that_do_not_end_in_time_are_ended_and_late_ones_not_started(tmp_path):
    steps = [says("long", seconds=60, gpus=1), training(tmp_path, 1.0, after=())]
    begin = time.monotonic()
    status, said = run(steps, tmp_path, pause_after_s=0.5, least_s=0.4, reserve_s=0.2)
    assert (status, time.monotonic() - begin < 10) == (0, True)
    assert "step long ended after" in said
    assert "too little time was left" in said
    assert [line[0] for line in noted(tmp_path)] == ["begin"]


def test_chosen_stages_use_what_others_left(tmp_path):
    steps = [says("a"), says("b", after=("a",)), says("c", after=("b",))]
    with pytest.raises(ConfigError, match=r"\['b'\] need a, which is not finished"):
        run(steps, tmp_path, chosen=("b",))
    run(steps, tmp_path, chosen=("a",))
    status, said = run(steps, tmp_path, chosen=("b",))
    assert (status, [line[1] for line in noted(tmp_path)[::2]]) == (0, ["a", "b"])
    assert "the time is up" not in said
    with pytest.raises(ConfigError, match="found"):
        run(steps, tmp_path, chosen=("d",))
    with pytest.raises(ConfigError, match="not defined before"):
        run([says("b", after=("a",)), says("a")], tmp_path)


def test_every_stage_that_runs_is_told_of_with_its_last_line(tmp_path):
    code = "import time; print('half way', flush=True); time.sleep(0.5)"
    said = run([Step(name="slow", commands=(("-c", code),))], tmp_path, report_every_s=0.2)[1]
    assert any("slow" in line and "half way" in line and " s " in line for line in said.splitlines())


def test_a_folder_is_one_pipelines(tmp_path):
    thread = threading.Thread(target=run, args=([says("a", seconds=1.0)], tmp_path))
    thread.start()
    while not (tmp_path / "order").exists():
        time.sleep(0.01)
    with pytest.raises(ConfigError, match="another pipeline"):
        run([says("a")], tmp_path)
    thread.join()


def test_a_signal_ends_all_processes(tmp_path):
    """Those of a step too that have a session of their own, as torchrun's do."""
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
        open(r"{out}/pids", "w").write(str(child.pid))
        time.sleep(60)
    """
    main = f"""
        import sys
        from pathlib import Path
        from lyra_core.training.pipeline.scheduler import Pipeline, PipelineConfig
        from lyra_core.training.pipeline.signals import stopping
        from lyra_core.training.pipeline.step import Step
        step = Step(name="long", commands=(("-c", {textwrap.dedent(code)!r}),))
        pipeline = Pipeline([step], Path(sys.argv[1]), PipelineConfig(gpus=("0",)), print)
        with stopping(pipeline):
            sys.exit(pipeline.run())
    """
    root = Path(__file__).resolve().parents[4]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(main), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    pids = tmp_path / "pids"
    while not (pids.exists() and pids.read_text()):
        time.sleep(0.05)
        assert process.poll() is None
    child = int(pids.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
