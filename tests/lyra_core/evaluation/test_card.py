"""The card of the mini weights: digests and costs of the folder, numbers of the same weights, lines that are met."""

from __future__ import annotations

import json

import pytest

from lyra_core.errors import ConfigError, WeightsError
from lyra_core.evaluation import table as mini_table
from lyra_core.evaluation.card import CARD, card
from lyra_core.evaluation.table import ASKED, Asked, Row, complete, markdown, read_rows
from lyra_core.mini.files import write_component
from lyra_core.mini.manifest import Training, mini_digest, read_components
from lyra_core.mini.vae import TINY_MINI_VAE, build_mini_vae
from lyra_core.train_commands.app import main


@pytest.fixture
def folder(tmp_path):
    training = Training(steps=1200, samples=115_200, gpu_seconds=5400.0, seed=3, scenes=640, runs=2)
    write_component(tmp_path, "vae", build_mini_vae(TINY_MINI_VAE).state_dict(), TINY_MINI_VAE, training)
    return tmp_path


def result_of(folder, rows, weights=None):
    path = folder / "result.json"
    lines = [row.as_dict() for row in complete(rows)]
    path.write_text(json.dumps({"weights": weights or mini_digest(folder), "rows": lines}))
    return path


def test_it_names_digests_and_costs(folder):
    text = card(folder)
    assert next(iter(read_components(folder)["vae"].files.values())) in text
    assert mini_digest(folder) in text
    assert "| vae | 2 | 1,200 | 115,200 | 640 | 3 | 1.50 |" in text
    assert "Together 1.50 GPU hours" in text
    assert "Not yet: run" in text


def test_numbers_stand_beside_what_was_asked(folder):
    rows = [
        Row(key="vae_worlds_db", value=35.2, scenes=32, hardware="a GPU"),
        Row(key="absrel_cameras", value=0.11, scenes=8, hardware="a GPU"),
    ]
    text = card(folder, result_of(folder, rows))
    assert "all pixels | at least 34 dB | 35.2 dB | met | 32 | a GPU |" in text
    assert "at most 0.08 | 0.110 | **missed** | 8 | a GPU |" in text
    assert text.count("not measured") == len(ASKED) - 2


def test_numbers_of_other_weights_are_refused(folder):
    with pytest.raises(WeightsError, match="measure again"):
        card(folder, result_of(folder, [], weights="0" * 64))
    (folder / "result.json").write_text('{"rows": 3}')
    with pytest.raises(WeightsError, match="run the benchmark again"):
        card(folder, folder / "result.json")


def test_lines_measured_before_are_kept_and_new_ones_replace_them(folder):
    before = [Row(key="world_seconds", value=20.0), Row(key="vae_worlds_db", value=30.0)]
    rows = complete([Row(key="vae_worlds_db", value=35.0)], before)
    assert [row.key for row in rows] == list(ASKED)
    known = {row.key: row.value for row in rows}
    assert (known["world_seconds"], known["vae_worlds_db"], known["drift_color"]) == (20.0, 35.0, None)
    assert read_rows(result_of(folder, rows))[0] == rows
    with pytest.raises(WeightsError, match="no lines"):
        complete([Row(key="nonsense", value=1.0)])


@pytest.mark.parametrize(("value", "least", "most"), [(2.0, True, False), (1.0, True, True), (0.5, False, True)])
def test_a_line_is_met_at_its_bound(value, least, most, monkeypatch):
    fields = {"group": "g", "name": "n", "target": 1.0}
    monkeypatch.setitem(mini_table.ASKED, "at_least", Asked(**fields))
    monkeypatch.setitem(mini_table.ASKED, "at_most", Asked(**fields, is_at_least=False))
    assert Row(key="at_least", value=value).is_met is least
    assert Row(key="at_most", value=value).is_met is most
    assert Row(key="at_least").is_met is None
    assert any("not measured" in line for line in markdown([Row(key="at_least")]))


def test_packing_a_run_writes_what_it_cost_and_a_new_card(tmp_path):
    from safetensors.torch import save_file

    from lyra_core.mini.vae import MINI_VAE

    save_file(build_mini_vae(MINI_VAE).state_dict(), str(tmp_path / "weights.safetensors"))
    for name, steps in (("first", 100), ("second", 50)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"steps": steps, "seconds": 60.0, "gpus": 2, "samples": 9}))
    out, weights = tmp_path / "out", str(tmp_path / "weights.safetensors")
    runs = [f"--run={tmp_path / name}.json" for name in ("first", "second")]
    assert main(["pack", "--vae", weights, *runs, "--out", str(out)]) == 0
    part = read_components(out)["vae"]
    assert part.training == Training(steps=150, samples=18, gpu_seconds=240.0, runs=2)
    assert next(iter(part.files.values())) in (out / CARD).read_text()
    with pytest.raises(WeightsError, match=r"no summary\.json"):
        main(["pack", "--vae", weights, "--run", weights, "--out", str(out)])
    with pytest.raises(ConfigError, match="one component"):
        main(["pack", "--out", str(out)])
