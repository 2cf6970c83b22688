"""Rules that hold for all of the code: signatures, errors, one definition of each thing, a test for each file."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyra_core import errors

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "catalogs", "lyra_core")
FILES = sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

MAX_PARAMETERS = 8
# Kernels and operators take plain arrays and numbers; their callers take values.
COMPILED = re.compile(r"\b(jit|kernel|custom_op|register_fake)\b")
MANY_PARAMETERS = {
    "flows/cli/run.py:run": "a command's parameters are its options",
    "lyra_core/world_models/protocol.py:generate": "the library's one call; all but two have defaults",
    "lyra_core/world_models/generative.py:generate": "the protocol's, and photographs",
    "lyra_core/world_models/parallax.py:generate": "the protocol's",
    "lyra_core/world_models/parallax_da3.py:generate": "the protocol's",
    "lyra_core/video/dit/network.py:step": "checkpointing keeps the arguments of what it repeats: tensors, not values",
    "lyra_core/procedural/photo_worlds.py:_draw": "one formula, cut from its only caller at the device's border",
}

# Defined once each, because two of them differed in the last bit, in a sign, or in what they gave for equal images.
DEFINED_ONCE = [
    *("psnr_db", "ssim", "differentiable_ssim"),
    *("quat_to_matrix", "matrix_to_quat", "rigid", "invert_rigid"),
    *("project", "unproject", "project_integer", "unproject_integer"),
    *("canonical_json", "tier_size", "TIERS", "SH_C0", "REFERENCE", "CORRECTED"),
    *("CHUNK_FRAMES", "FRAMES_PER_SECOND", "DEFAULT_HFOV_DEG", "QUALITY_VERSION"),
]

# Class names that several files define.
SEVERAL_CLASSES = {
    "ChannelNorm": "layers of two networks, named as in their papers",
    "GatedFeedForward": "layers of two networks",
    "Head": "last layers of two networks",
    "ClipSource": "batches of clips to learn from, and frames of one clip to reconstruct",
}

# Used by tests and by users' own code only.
FOR_USERS = {
    "resampled": "brings camera files to another frame rate (docs/models.md)",
    "save_trajectory": "writes the files that camera_path takes (examples/custom_camera_path.py)",
    "read_colmap_text": "reads a world's colmap folder",
    "perturbed_clip": "a film with known faults: benchmarks and tests of the reconstruction",
    "random_state": "weights for benchmarks of the depth networks",
    "cast_reference": "the plain ray caster that the fast one is compared with",
    "fit_similarity": "the plain fit that align_cameras is compared with",
    "is_unused_key": "says which tensors of the released image tower are left out",
    "readinto": "called by io.BufferedReader",
    "find_class": "called by pickle",
}

# Files that have no test file of their own, that no test imports by name, and that are no part of a neighbour for which
# one of both holds: a test that runs them.
TESTED_IN = {
    "lyra_core/training/detail_source.py": "tests/lyra_core/training/test_super_resolution.py",
    "tasks/simcheck.py": "tests/tasks/test_geometry.py",
    "flows/compact.py": "tests/flows/test_deployments.py",
    "flows/time_world.py": "tests/lyra_core/evaluation/test_measure_table.py",
    "lyra_core/_launch.py": "tests/test_wheel.py",
    "lyra_core/evaluation/autoencoding.py": "tests/lyra_core/training/test_vae.py",
    "lyra_core/factory.py": "tests/flows/test_worker_plan.py",
    "lyra_core/finetuning/finetune_clips.py": "tests/lyra_core/finetuning/test_loop.py",
    "lyra_core/formats/recording.py": "tests/lyra_core/dataset/test_data_set.py",
    "lyra_core/geometry/path_measures.py": "tests/tasks/test_commit.py",
    "lyra_core/geometry/sway.py": "tests/tasks/test_commit.py",
    "lyra_core/jit.py": "tests/lyra_core/geometry/test_warp.py",
    "lyra_core/layered_depth/splats.py": "tests/lyra_core/world_models/test_parallax.py",
    "lyra_core/procedural/hit_kernels.py": "tests/lyra_core/procedural/test_worlds.py",
    "lyra_core/training/pipeline/signals.py": "tests/lyra_core/training/pipeline/test_scheduler.py",
    "lyra_core/weights/unpickle.py": "tests/lyra_core/weights/test_pickles.py",
}


def relative(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def functions(file: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, Function))


def num_parameters(function: Function) -> int:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_functions_have_few_parameters():
    long = {
        f"{relative(file)}:{function.name}"
        for file in FILES
        for function in functions(file)
        if num_parameters(function) > MAX_PARAMETERS
        and not COMPILED.search(" ".join(map(ast.unparse, function.decorator_list)))
    }
    new, gone = sorted(long - set(MANY_PARAMETERS)), sorted(set(MANY_PARAMETERS) - long)
    assert not new, f"more than {MAX_PARAMETERS} parameters: {new}; put those that belong together into a value"
    assert not gone, f"short enough by now: {gone}; take them out of MANY_PARAMETERS"


def raised(function: Function) -> set[str]:
    """Names of this project's errors that a function raises in its own body."""
    found, left = set(), list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found |= {error.id} if isinstance(error, ast.Name) else set()
        left += list(ast.iter_child_nodes(node))
    return {name for name in found if issubclass(getattr(errors, name, Warning), errors.LyraError)}


def public(body: list[ast.stmt]) -> Iterator[Function]:
    """Public functions and methods; ruff checks that each has a docstring."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_name_the_errors_they_raise(package):
    silent = [
        f"{relative(file)}:{function.name} {error}"
        for file in FILES
        if relative(file).startswith(f"{package}/")
        for function in public(tree(file).body)
        for error in raised(function)
        if error not in (ast.get_docstring(function) or "")
    ]
    assert not silent, f"add them under Raises: {silent}"


def defined(file: Path) -> list[str]:
    """Names that a file defines at its top level."""
    names = []
    for node in tree(file).body:
        if isinstance(node, Function | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = [e for target in node.targets for e in getattr(target, "elts", [target])]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def test_what_has_one_definition():
    counts = Counter(name for file in FILES for name in defined(file))
    assert {name: counts[name] for name in DEFINED_ONCE} == dict.fromkeys(DEFINED_ONCE, 1)


def test_a_class_name_means_one_thing():
    counts = Counter(node.name for file in FILES for node in tree(file).body if isinstance(node, ast.ClassDef))
    several = {name for name, count in counts.items() if count > 1 and not name.startswith("_")}
    new, gone = sorted(several - set(SEVERAL_CLASSES)), sorted(set(SEVERAL_CLASSES) - several)
    assert not new, f"two classes are called {new}; give one of each another name"
    assert not gone, f"{gone} are one class each by now; take them out of SEVERAL_CLASSES"


def test_everything_public_is_used_by_the_product():
    """A name counts as used where it is written a second time in production code, whoever it belongs to there."""
    words = Counter(re.findall(r"\w+", "\n".join(file.read_text(encoding="utf-8") for file in FILES)))
    registered = re.compile(r"\b(app|command|validator|register)\b")
    unused = {
        function.name
        for file in FILES
        for function in public(tree(file).body)
        if words[function.name] == 1 and not registered.search(" ".join(map(ast.unparse, function.decorator_list)))
    }
    new, gone = sorted(unused - set(FOR_USERS)), sorted(set(FOR_USERS) - unused)
    assert not new, f"only tests use {new}; delete them, or say in FOR_USERS whom they are for"
    assert not gone, f"the product uses {gone} by now; take them out of FOR_USERS"


@functools.cache
def imported(file: Path) -> frozenset[str]:
    """Modules of this repository that a file imports anywhere, as paths."""
    names: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")}
    return frozenset(paths & {relative(known) for known in FILES})


def reached(file: Path) -> set[str]:
    """Everything a file imports, and what that imports, and so on."""
    seen: set[str] = set()
    left = [file]
    while left:
        new = imported(left.pop()) - seen
        seen |= new
        left += [REPOSITORY / name for name in new]
    return seen


def untested() -> set[str]:
    """Files that no test names, neither directly nor by naming the neighbour in the same folder that uses them."""
    mirrors = {relative(test.with_name(test.name.removeprefix("test_"))).removeprefix("tests/") for test in TESTS}
    known = mirrors.union(*map(imported, TESTS)) & set(map(relative, FILES))
    parts = {part for name in known for part in imported(REPOSITORY / name) if Path(part).parent == Path(name).parent}
    entries = {relative(file) for file in FILES if file.name in ("__init__.py", "__main__.py")}
    return set(map(relative, FILES)) - known - parts - entries


def test_every_file_has_a_test_that_names_it():
    """tests/<its path>/test_<its name>.py, a test that imports it or a neighbour that uses it, or TESTED_IN."""
    found = untested()
    new, gone = sorted(found - set(TESTED_IN)), sorted(set(TESTED_IN) - found)
    assert not new, f"no test names {new}; test them, or say in TESTED_IN where they run"
    assert not gone, f"{gone} need no entry in TESTED_IN any more"


@pytest.mark.parametrize(("file", "test"), TESTED_IN.items())
def test_a_listed_test_runs_its_file(file, test):
    code = [REPOSITORY / name for name in (test, "prefect.yaml", *reached(REPOSITORY / test))]
    module = file.removesuffix(".py").replace("/", ".")  # by this name a process of its own is started
    starts = any(module in part.read_text(encoding="utf-8") for part in code)
    assert starts or file in reached(REPOSITORY / test), f"{test} does not run {file}, nor does anything it imports"
