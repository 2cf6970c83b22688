from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from lyra_core.errors import FormatError, GaussiansError
from lyra_core.formats.ply import CHUNK_ROWS, read_ply, write_ply
from lyra_core.values import Gaussians


def make(count: int, degree: int = 0, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator) * 10,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator)),
        scales=torch.rand(count, 3, generator=generator) * 0.1 + 1e-4,
        opacities=torch.rand(count, generator=generator),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=generator),
    )


def assert_same(found: Gaussians, wanted: Gaussians) -> None:
    assert torch.equal(found.means, wanted.means)
    assert torch.equal(found.sh, wanted.sh)
    torch.testing.assert_close(found.quats, wanted.quats, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.scales, wanted.scales, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.opacities, wanted.opacities.clamp(1e-6, 1 - 1e-6), rtol=1e-5, atol=1e-7)


@given(st.integers(1, 300), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_round_trip(tmp_path_factory, count, degree, seed):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    gaussians = make(count, degree, seed)
    write_ply(gaussians, path)
    assert_same(read_ply(path), gaussians)


def test_round_trip_across_chunks(tmp_path):
    gaussians = make(CHUNK_ROWS + 17, 1)
    gaussians.save_ply(tmp_path / "a.ply")
    assert_same(Gaussians.load_ply(tmp_path / "a.ply"), gaussians)


@pytest.mark.parametrize("degree", range(4))
def test_plyfile_reads_the_inria_layout(tmp_path, degree):
    gaussians = make(50, degree)
    write_ply(gaussians, tmp_path / "a.ply")
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    k = (degree + 1) ** 2
    names = [p.name for p in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9 : 9 + 3 * (k - 1)] == [f"f_rest_{i}" for i in range(3 * (k - 1))]
    assert names[-8:] == [
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    assert all(p.val_dtype == "f4" for p in vertex.properties)
    assert not np.any(vertex["nx"])
    np.testing.assert_allclose(vertex["scale_1"], gaussians.scales[:, 1].log(), rtol=1e-6)
    np.testing.assert_allclose(vertex["opacity"], torch.logit(gaussians.opacities), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vertex["rot_0"], gaussians.quats[:, 0])  # w first
    for channel in range(3):
        for j in range(1, k):
            stored = vertex[f"f_rest_{channel * (k - 1) + j - 1}"]
            np.testing.assert_array_equal(stored, gaussians.sh[:, j, channel])


def with_parts(gaussians: Gaussians) -> Gaussians:
    return replace(gaussians, part=torch.arange(len(gaussians)).remainder(3).to(torch.uint8))


@pytest.mark.parametrize("degree", [0, 3])
def test_parts_come_back_and_other_readers_pass_over_them(tmp_path, degree):
    plain, told = make(CHUNK_ROWS + 17, degree), with_parts(make(CHUNK_ROWS + 17, degree))
    write_ply(plain, tmp_path / "plain.ply")
    write_ply(told, tmp_path / "told.ply")
    found = read_ply(tmp_path / "told.ply")
    assert_same(found, plain)
    assert torch.equal(found.part, told.part)
    assert read_ply(tmp_path / "plain.ply").part is None
    mine, theirs = (PlyData.read(tmp_path / f"{name}.ply")["vertex"] for name in ("told", "plain"))
    assert [p.name for p in mine.properties] == [*(p.name for p in theirs.properties), "part"]
    assert {p.val_dtype for p in mine.properties} == {"f4"}  # what readers take for granted
    np.testing.assert_array_equal(mine["part"], told.part)
    for name in (p.name for p in theirs.properties):
        np.testing.assert_array_equal(mine[name], theirs[name])


def test_gsply_reads_a_file_with_parts(tmp_path):
    gsply = pytest.importorskip("gsply")
    gaussians = with_parts(make(1000))
    write_ply(gaussians, tmp_path / "a.ply")
    found = gsply.plyread(str(tmp_path / "a.ply"))
    np.testing.assert_array_equal(found.means, gaussians.means)
    np.testing.assert_array_equal(found.quats, gaussians.quats)
    np.testing.assert_allclose(found.scales, gaussians.scales.log(), rtol=1e-6)
    np.testing.assert_array_equal(found.sh0, gaussians.sh[:, 0])


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [("u1", [0, 1, 3], None), ("f4", [0, 0.5, 2], None), ("f4", [0, np.nan, 2], None), ("u1", [2, 1, 0], [2, 1, 0])],
)
def test_a_part_that_means_something_else_is_passed_over(tmp_path, kind, values, found):
    table = foreign(make(3), NAMES)
    wider = np.empty(3, [*((name, "f4") for name in NAMES), ("part", kind)])
    for name in NAMES:
        wider[name] = table[name]
    wider["part"] = values
    PlyData([PlyElement.describe(wider, "vertex")]).write(tmp_path / "a.ply")
    part = read_ply(tmp_path / "a.ply").part
    assert (None if part is None else part.tolist()) == found


def foreign(gaussians: Gaussians, names: list[str], kind: str = "f4") -> np.ndarray:
    found = {
        **{name: gaussians.means[:, i] for i, name in enumerate("xyz")},
        **{f"f_dc_{i}": gaussians.sh[:, 0, i] for i in range(3)},
        "opacity": torch.logit(gaussians.opacities),
        **{f"scale_{i}": gaussians.scales[:, i].log() for i in range(3)},
        **{f"rot_{i}": gaussians.quats[:, i] for i in range(4)},
        "label": torch.arange(len(gaussians)),
    }
    table = np.empty(len(gaussians), [(name, kind if name != "label" else "u1") for name in names])
    for name in names:
        table[name] = found[name].numpy()
    return table


NAMES = ["x", "y", "z", *(f"f_dc_{i}" for i in range(3)), "opacity"]
NAMES += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


@pytest.mark.parametrize("form", [{"text": True}, {"byte_order": ">"}, {"byte_order": "<"}, {"byte_order": "="}])
@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ["label", *NAMES]])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_files_of_other_writers(tmp_path, form, names, kind):
    gaussians = make(40)
    element = PlyElement.describe(foreign(gaussians, names, kind), "vertex")
    PlyData([element], **form).write(tmp_path / "a.ply")
    found = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(found.means, gaussians.means, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.scales, gaussians.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.quats, gaussians.quats, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sh, gaussians.sh, rtol=1e-6, atol=1e-6)


def test_other_elements_and_lists_are_passed_over(tmp_path):
    gaussians = make(5)
    vertex = PlyElement.describe(foreign(gaussians, NAMES), "vertex")
    faces = np.array([(np.array([0, 1, 2], "i4"),)], [("vertex_indices", "O")])
    face = PlyElement.describe(faces, "face", val_types={"vertex_indices": "i4"})
    for elements in ([vertex, face], [face, vertex]):
        PlyData(elements).write(tmp_path / "a.ply")
        assert torch.equal(read_ply(tmp_path / "a.ply").means, gaussians.means)


def test_unclamped_writers_and_loose_quaternions_are_understood(tmp_path):
    table = foreign(make(4), NAMES)
    table["opacity"] = [np.inf, -np.inf, 0, 2]
    for i in range(4):
        table[f"rot_{i}"] = 3.0 if i == 0 else 0.0
    table["rot_0"][3] = 0.0
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "a.ply")
    found = read_ply(tmp_path / "a.ply")
    assert found.opacities[:3].tolist() == [1.0, 0.0, 0.5]
    assert torch.equal(found.quats, torch.tensor([[1.0, 0, 0, 0]] * 4))


def test_opacities_of_zero_and_one_are_clamped(tmp_path):
    gaussians = make(3)
    gaussians.opacities[:] = torch.tensor([0.0, 1.0, 0.5])
    write_ply(gaussians, tmp_path / "a.ply")
    stored = PlyData.read(tmp_path / "a.ply")["vertex"]["opacity"]
    limit = np.log((1 - 1e-6) / 1e-6)
    np.testing.assert_allclose(stored, [-limit, limit, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh"])
def test_non_finite_values_are_refused_by_name_and_count(tmp_path, field, value):
    gaussians = make(10)
    getattr(gaussians, field)[3:5] = value
    (tmp_path / "a.ply").write_bytes(b"old")
    with pytest.raises(GaussiansError, match=rf"{field} must be finite; 2 of 10 Gaussians.*first: 3"):
        write_ply(gaussians, tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_huge_finite_values_are_written(tmp_path):
    gaussians = make(4)
    gaussians.means[:] = 3e38
    write_ply(gaussians, tmp_path / "a.ply")
    assert torch.equal(read_ply(tmp_path / "a.ply").means, gaussians.means)


def test_other_unwritable_values_are_refused(tmp_path):
    with pytest.raises(GaussiansError, match="at least one"):
        write_ply(make(3)[:0], tmp_path / "a.ply")
    zero = make(3)
    zero.scales[1, 2] = 0
    with pytest.raises(GaussiansError, match="1 of 3 Gaussians hold zero or less"):
        write_ply(zero, tmp_path / "a.ply")
    logits = make(3)
    logits.opacities[0] = 4.0
    with pytest.raises(GaussiansError, match="not logits"):
        write_ply(logits, tmp_path / "a.ply")


def test_equal_gaussians_give_equal_bytes(tmp_path):
    write_ply(make(100, 2), tmp_path / "a.ply")
    write_ply(make(100, 2), tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert (tmp_path / "a.ply").stat().st_mode & 0o444 == 0o444


@given(st.integers(0, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_any_truncation_is_a_format_error(tmp_path_factory, degree, data):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_ply(make(3, degree), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(FormatError, match=str(path.name)):
        read_ply(path)


HEADER = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .ply"),
        (b"\x89PNG\r\n", "not a .ply"),
        (b"ply\n" + b"comment x\n" * 20_000, "not a .ply"),
        (b"ply\nend_header\n", "malformed"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex many\nend_header\n", "malformed"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex -1\nend_header\n", "malformed"),
        (b"ply\nformat strange 1.0\nelement vertex 0\nproperty float x\nend_header\n", "malformed"),
        (HEADER + b"property float x\nproperty float x\nend_header\n" + bytes(8), "malformed"),
        (HEADER + b"property float\nend_header\n" + bytes(8), "malformed"),
        (HEADER + b"property float x\nend_header\n" + bytes(4), "properties y, z"),
        (HEADER + b"property quad x\nend_header\n" + bytes(4), "malformed"),
        (
            b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n",
            "malformed",
        ),
        (b"ply\nformat ascii 1.0\nelement face 0\nproperty float x\nend_header\n", "malformed"),
    ],
)
def test_malformed_files_are_format_errors(tmp_path, data, message):
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_ply(tmp_path / "a.ply")


def test_foreign_files_with_bad_values_are_format_errors(tmp_path):
    for name, value, message in (
        ("x", np.nan, "means of 1 of 4"),
        ("opacity", np.nan, "opacity is NaN for 1"),
        ("scale_0", 200.0, "natural logarithms"),
    ):
        table = foreign(make(4), NAMES)
        table[name][2] = value
        PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "a.ply")
        with pytest.raises(FormatError, match=message):
            read_ply(tmp_path / "a.ply")
    PlyData([PlyElement.describe(foreign(make(0), NAMES), "vertex")]).write(tmp_path / "a.ply")
    with pytest.raises(FormatError, match="holds no Gaussians"):
        read_ply(tmp_path / "a.ply")
    with pytest.raises(FormatError, match="cannot be read"):
        read_ply(tmp_path / "missing.ply")


def test_wrong_number_of_rest_coefficients(tmp_path):
    write_ply(make(2, 1), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(b"f_rest_8", b"g_rest_8"))
    with pytest.raises(FormatError, match="8 f_rest properties"):
        read_ply(tmp_path / "a.ply")
