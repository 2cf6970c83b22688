"""Try a stored world in a simulator; the models that made it are not needed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lyra_core.errors import CatalogError
from lyra_core.formats.mjcf import write_mjcf
from lyra_core.formats.store import Store
from lyra_core.records import SimcheckRecord, WorldRecord, utc_now
from lyra_core.simulation.drop_test import drop_test
from tasks.stored_world import StoredWorld


def simcheck(store: Store, world: WorldRecord) -> SimcheckRecord:
    """Drop things at a world's spawn point, in its own MuJoCo file or in one made from its Gaussians and cameras.

    Raises:
        CatalogError: it has neither such a file nor Gaussians and cameras.
        FormatError: a file is damaged. StoreError: one cannot be read.
        MissingExtraError: MuJoCo is not installed.
    """
    stored = next((a.key for a in world.artifacts if a.role == "mjcf"), None)
    mjcf, reasons = (store.read_bytes(stored).decode(), ()) if stored is not None else made_mjcf(store, world)
    if mjcf is None:
        return SimcheckRecord(world_id=world.world_id, reasons=reasons, created_at=utc_now())
    result = drop_test(mjcf)
    return SimcheckRecord(
        world_id=world.world_id,
        drop_test_ok=result.is_passed,
        reasons=result.reasons,
        ball_error_m=result.ball.error_m,
        ball_moved_m=result.ball.moved_m,
        box_error_m=result.box.error_m,
        box_moved_m=result.box.moved_m,
        robot_error_m=result.robot.error_m,
        robot_tilt_deg=result.robot.tilt_deg,
        robot_drove_m=result.drove_m,
        mjcf="made" if stored is None else "stored",
        simulator=result.simulator,
        created_at=utc_now(),
    )


def made_mjcf(store: Store, world: WorldRecord) -> tuple[str | None, tuple[str, ...]]:
    """A MuJoCo file of a world that has none, or why there is no place to stand in it.

    Raises:
        CatalogError: the world has no Gaussians or no cameras. FormatError, StoreError: a file cannot be read.
    """
    keys = {a.role: a.key for a in world.artifacts}
    if not {"ply", "cameras"} <= set(keys):
        raise CatalogError(
            f"world {world.world_id} has no MuJoCo file, and no Gaussians and cameras to make one from; its files: "
            f"{', '.join(keys) or 'none'}"
        )
    with tempfile.TemporaryDirectory(prefix="lyra-simcheck-") as folder:
        scene = StoredWorld(store, world, Path(folder)).scene
        standing = scene.mujoco_world()
        if standing is None:
            return None, scene.reasons
        write_mjcf(standing, Path(folder) / "world.xml")
        return (Path(folder) / "world.xml").read_text(encoding="utf-8"), ()
