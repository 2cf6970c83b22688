"""Check every stored file against the catalog, then copy chosen worlds into a plain folder for other programs.

python examples/verify_and_export.py        # after `make run` or examples/batch_in_process.py
"""

from __future__ import annotations

from pathlib import Path

from catalogs.query import query
from catalogs.verify import verify
from lyra_core.formats.store import open_store

WORLDS = "./worlds"  # or s3://bucket/worlds
OUT = Path("export")
WHERE = "accepted AND psnr_db >= 20"
ROLES = ("ply", "video", "transforms")  # transforms.json is read by nerfstudio


def main(worlds: str = WORLDS, out: Path = OUT, where: str = WHERE) -> list[Path]:
    """Write <out>/<name>-<id>/ with the files of each role; stop if a file is not what its row says."""
    store = open_store(worlds)
    problems = verify(store)
    if problems:
        raise SystemExit(f"{len(problems)} files differ from the catalog, the first: {problems[0]}")
    written = []
    for row in query(store, f"SELECT name, world_id, artifacts FROM worlds WHERE {where}").to_pylist():
        folder = out / f"{row['name']}-{row['world_id'][:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        for artifact in row["artifacts"]:
            if artifact["role"] in ROLES:
                target = folder / Path(artifact["key"]).name
                store.get_file(artifact["key"], target)
                written.append(target)
    print(f"{out}: {len(written)} files, all with the size and SHA-256 of their rows")
    return written


if __name__ == "__main__":
    main()
