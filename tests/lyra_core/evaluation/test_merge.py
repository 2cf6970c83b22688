"""Results of processes side by side become one table: of the same weights only, what was measured last wins."""

import json

import pytest

from lyra_core.errors import WeightsError
from lyra_core.evaluation import merge as results_merge
from lyra_core.evaluation.table import Row, complete, read_rows


@pytest.fixture
def measured(tmp_path):
    def write(name, values, weights="a" * 64, **more):
        rows = complete([Row(key=key, value=value, scenes=2, hardware=name) for key, value in values.items()])
        path = tmp_path / name / "mini-2026-01-01.json"
        path.parent.mkdir()
        found = {"date": "2026-01-01", "hardware": {"cpu": name}, "weights": weights, "peak_rss_gib": 1.0, **more}
        path.write_text(json.dumps({**found, "rows": [row.as_dict() for row in rows]}))
        return path

    return write


def test_later_files_win_and_nothing_measured_is_lost(measured, tmp_path):
    first = {"drift_color": 3.0, "splats_novel_db": 20.0}
    paths = [
        measured("one", first, twin="runs/twin", details={"a": 1.0, "b": 1.0}, peak_rss_gib=4.0),
        measured("two", {"splats_novel_db": 21.0, "absrel_cameras": 0.07}, twin=None, details={"b": 2.0}),
    ]
    written = results_merge.merge(paths, tmp_path / "results", tmp_path / "pictures")
    rows = {row.key: (row.value, row.hardware) for row in read_rows(written)[0] if row.value is not None}
    assert rows == {"drift_color": (3.0, "one"), "splats_novel_db": (21.0, "two"), "absrel_cameras": (0.07, "two")}
    found = json.loads(written.read_text())
    assert (found["twin"], found["details"], found["peak_rss_gib"]) == ("runs/twin", {"a": 1.0, "b": 2.0}, 4.0)
    assert found["date"] in written.name
    assert found["hardware"]["cpu"] not in ("one", "two")
    assert "21.0 dB" in (tmp_path / "pictures" / "table.md").read_text()


def test_todays_file_of_the_same_weights_is_added_to_and_another_replaced(measured, tmp_path):
    results, pictures = tmp_path / "results", tmp_path / "pictures"
    results_merge.merge([measured("old", {"drift_color": 9.0}, weights="b" * 64)], results, pictures)
    results_merge.merge([measured("one", {"vae_photos_db": 30.0})], results, pictures)
    written = results_merge.merge([measured("two", {"absrel_single": 0.2})], results, pictures)
    rows, digest = read_rows(written)
    assert digest == "a" * 64
    assert {row.key for row in rows if row.value is not None} == {"vae_photos_db", "absrel_single"}


def test_other_weights_are_refused_by_name(measured, tmp_path):
    paths = [measured("one", {}), measured("two", {}, weights="b" * 64)]
    with pytest.raises(WeightsError, match=r"one/mini.* measures weights aaaa.*two/mini.* measures bbbb"):
        results_merge.merge(paths, tmp_path / "results", tmp_path)
    assert not (tmp_path / "results").exists()
