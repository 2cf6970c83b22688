"""One stored world for three simulators: Isaac Sim (USD), MuJoCo (MJCF) and whatever reads glTF, such as game engines.

python examples/export_for_simulators.py        # after `make run` or examples/batch_in_process.py; needs [export]
"""

from __future__ import annotations

from pathlib import Path

from catalogs.commit import read_commit
from catalogs.query import query
from lyra_core.formats.store import open_store
from tasks.export import export_world, find_exports, require_packages

WORLDS = "./worlds"  # or s3://bucket/worlds
OUT = Path("for_simulators")
WHERE = "accepted"  # "up_source = 'floor'" for worlds in which a robot can stand
FORMATS = {
    "usdz": "Isaac Sim and Omniverse: splats to see, /world/collision to stand on, z up, metres",
    "mjcf": "MuJoCo: heightfield, obstacles and a site `spawn`; only where a floor is trusted",
    "gltf": "others: splats.glb (KHR_gaussian_splatting), mesh.glb and collision.glb in one frame, y up",
}


def main(worlds: str = WORLDS, out: Path = OUT, where: str = WHERE) -> dict[str, list[str]]:
    """Write the first world that `where` names; the files of each format that could be written."""
    exports = find_exports(list(FORMATS))
    require_packages(exports)
    store = open_store(worlds)
    found = query(store, f"SELECT world_id, name FROM worlds WHERE {where} ORDER BY name LIMIT 1").to_pylist()
    if not found:
        raise SystemExit(f"no world of {worlds} has {where}; choose another WHERE")
    (row,) = found
    done = export_world(store, read_commit(store, row["world_id"]).world, exports, out)
    home = out / row["world_id"]
    files = {form: sorted(file.name for file in (home / form).glob("*")) for form in FORMATS}
    for form, what in FORMATS.items():
        said = f"not written: {done.problems[form]}" if form in done.problems else ", ".join(files[form])
        print(f"{row['name']}  {form:5} {said}\n    {what}")
    return {form: names for form, names in files.items() if names}


if __name__ == "__main__":
    main()
