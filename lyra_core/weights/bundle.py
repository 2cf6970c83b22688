"""A folder of converted sets that belong together: what a model needs of it, what is missing, and its digests.

    <folder>/lyra2-dit/manifest.json, model-00001-of-00009.safetensors, ...
    <folder>/lyra2-vae/...
    <folder>/umt5-tokenizer/tokenizer.json, ...

Light on purpose (no torch): planning a batch asks for digests only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.models import MODELS, RequiredSet
from lyra_core.weights.manifest import MANIFEST_NAME, manifest_digest, read_manifest
from lyra_core.weights.registry import LICENSES, WEIGHT_SETS

NARROW_SUFFIX = "-fast"
"""Of the name of a set of the video network in 8 bits (lyra_core.weights.narrow), beside the set it was made from."""
PARTS: dict[str, tuple[RequiredSet, ...]] = {name: known.parts for name, known in MODELS.items() if known.parts}
"""Of the models that consist of converted sets."""


def find_sets(folder: str | Path | None, parts: Sequence[RequiredSet]) -> dict[str, Path]:
    """The folder of each part's set, by role.

    Raises:
        WeightsError: no folder, or one that may not be read; sets are missing or not converted: the message names
            every one and the commands that bring it.
    """
    root = Path("weights" if folder is None else folder)
    _require_readable(root)
    sets: dict[str, Path] = {}
    missing: list[RequiredSet] = []
    for part in parts:
        home = next((root / name for name in (*part.sets, *part.stand_ins) if _is_there(root / name)), None)
        if home is None:
            missing.append(part)
        else:
            sets[part.role] = home
    if missing:
        raise WeightsError(_how_to_get(root, missing))
    return sets


def lora_parts(loras: Sequence[str]) -> tuple[RequiredSet, ...]:
    """A part for each LoRA of a recipe, written `set` or `set:strength`."""
    return tuple(RequiredSet(role=lora, sets=(lora.partition(":")[0],)) for lora in loras)


def set_digests(homes: Mapping[str, Path]) -> tuple[str, ...]:
    """The digest of each set, from its manifest; of a tokenizer, from its files.

    Raises:
        WeightsError: a malformed manifest.
    """
    return tuple(_digest(home) for home in homes.values())


def _require_readable(root: Path) -> None:
    try:
        is_file = root.is_file()
        if root.is_dir():
            next(root.iterdir(), None)
    except OSError as error:
        raise WeightsError(
            f"{root} should be a folder of converted weights, found {(error.strerror or str(error)).lower()}; make it "
            "readable, or point the recipe at another folder: --set weights=FOLDER"
        ) from error
    if is_file:
        raise WeightsError(
            f"{root} should be a folder of converted weights, found a file; point the recipe at the folder that holds "
            "the sets: --set weights=FOLDER (docs/weights.md)"
        )


def narrowed_from(home: Path) -> str | None:
    """Digest of the set that a set of 8-bit weights was made from; None for every other set.

    Raises:
        WeightsError: a malformed manifest.
    """
    found = read_manifest(home).config.get("narrowed_from")
    return None if found is None else str(found)


def _is_there(home: Path) -> bool:
    if WEIGHT_SETS.get(home.name) is not None and WEIGHT_SETS[home.name].kind == "tokenizer":
        return any((home / name).is_file() for name in ("tokenizer.json", "spiece.model"))
    return (home / MANIFEST_NAME).is_file()


def _digest(home: Path) -> str:
    if (home / MANIFEST_NAME).is_file():
        # 8-bit weights are what loading makes of the others: worlds of both have the same ids
        return narrowed_from(home) or manifest_digest(home)
    whole = hashlib.sha256()
    for path in sorted(path for path in home.iterdir() if path.is_file()):
        whole.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _how_to_get(root: Path, missing: Sequence[RequiredSet]) -> str:
    lines = []
    for part in missing:
        name = part.sets[0]
        item = WEIGHT_SETS.get(name)
        accept = f" --accept-license {item.license}" if item is not None and LICENSES[item.license].restricted else ""
        if item is not None and item.kind == "tokenizer":
            lines.append(f"  lyra weights fetch {name} {root / name}")
        elif item is not None:
            lines.append(f"  lyra weights fetch {name} downloads/{name}{accept}")
            source = Path("downloads") / name / item.entry
            lines.append(f"  lyra weights convert {source} {root / name} --name {name}")
        else:
            lines.append(f"  lyra weights convert FILE {root / name} --kind lora")
    names = ", ".join(" or ".join(part.sets) for part in missing)
    return (
        f"{root} should hold converted weights, a folder for each set; missing: {names}. Bring them with\n"
        + "\n".join(lines)
        + "\nor point the recipe at another folder: --set weights=FOLDER (docs/weights.md)"
    )
