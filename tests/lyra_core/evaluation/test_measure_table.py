"""The table as a command: results become one, and what its parts start is there."""

import importlib.util
import json

import pytest

from lyra_core.errors import ConfigError
from lyra_core.evaluation import splat_parts
from lyra_core.evaluation.table import Row, complete
from lyra_core.train_commands.app import main


def result(path, **values):
    rows = complete([Row(key=key, value=value, scenes=2, hardware=path.parent.name) for key, value in values.items()])
    path.parent.mkdir()
    path.write_text(json.dumps({"weights": "a" * 64, "rows": [row.as_dict() for row in rows], "details": {}}))
    return str(path)


def test_results_are_merged_beside_the_pictures_unless_told_otherwise(tmp_path):
    files = [
        result(tmp_path / "one" / "mini-2026-01-01.json", drift_color=3.0),
        result(tmp_path / "two" / "mini-2026-01-01.json", splats_novel_db=21.0),
    ]
    merging = [f"--merge={file}" for file in files]
    assert main(["table", *merging, "--out", str(tmp_path / "out")]) == 0
    (found,) = (tmp_path / "out").glob("mini-*.json")
    values = {row["key"]: row["value"] for row in json.loads(found.read_text())["rows"]}
    assert (values["drift_color"], values["splats_novel_db"]) == (3.0, 21.0)
    assert "generated worlds" in (tmp_path / "out" / "table.md").read_text()
    numbers = str(tmp_path / "numbers")
    assert main(["table", *merging, "--out", str(tmp_path / "other"), "--result", numbers]) == 0
    assert not list((tmp_path / "other").glob("*.json"))
    assert list((tmp_path / "numbers").glob("mini-*.json"))


def test_the_program_that_times_a_world_is_in_the_factory():
    assert importlib.util.find_spec(splat_parts.TIMED) is not None


def test_unknown_parts_are_refused():
    with pytest.raises(ConfigError, match=r"depth-table.*found worlds"):
        main(["table", "--out", "x", "--parts", "vae", "--parts", "worlds"])
