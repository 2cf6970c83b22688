"""A stored world as writers of other formats receive it: each part is fetched or made when first asked for."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path

from lyra_core.config.geometry import GeometryOptions
from lyra_core.errors import CatalogError
from lyra_core.formats.cameras import read_cameras_parquet
from lyra_core.formats.mesh import Mesh
from lyra_core.formats.store import Store
from lyra_core.records import WorldRecord
from lyra_core.scene_geometry.measure import SceneGeometry, measure_geometry
from lyra_core.scene_geometry.scale import GivenScale
from lyra_core.values import CameraPath, Gaussians


class StoredWorld:
    """One world of a store.

    Attributes:
        record: its row.
    """

    def __init__(self, store: Store, record: WorldRecord, scratch: Path) -> None:
        """Fetch nothing yet; files will lie in `scratch`, an existing folder of the caller's."""
        self.record = record
        self._store = store
        self._scratch = scratch
        self._keys = {artifact.role: artifact.key for artifact in record.artifacts}

    @cached_property
    def gaussians(self) -> Gaussians:
        """World frame."""
        return Gaussians.load_ply(self.fetch("ply"))

    @cached_property
    def cameras(self) -> CameraPath:
        """Of the video, world frame."""
        return read_cameras_parquet(self.fetch("cameras"))

    @cached_property
    def video(self) -> Path:
        """Without loss where the world has it so."""
        return self.fetch("lossless" if self.has("lossless") else "video")

    @cached_property
    def scene(self) -> SceneGeometry:
        """Floor, scale and free space, measured again as its recipe says: the models are not needed."""
        record = self.record
        fields = json.loads(record.recipe_json).get("geometry") if record.recipe_json else None
        known = {field.name for field in dataclasses.fields(GeometryOptions)}  # an older row may have others
        # A person's scale is in the row as the height of the camera that follows from it.
        is_given = record.metric_scale_source in ("camera_height", "center_distance") and record.floor_z_m is not None
        return measure_geometry(
            self.gaussians,
            self.cameras,
            record.world_id,
            options=GeometryOptions(**{k: v for k, v in fields.items() if k in known}) if fields else None,
            is_metric_model=record.metric_scale_source == "depth_model",
            given=GivenScale(camera_height_m=-(record.floor_z_m or 0.0)) if is_given else None,
        )

    @cached_property
    def visual_mesh(self) -> Mesh | None:
        """The fused surface in the ground frame, or None where nothing was seen.

        Raises:
            MissingExtraError: a package of the extra `geometry` is not installed.
        """
        return self.scene.visual_mesh()

    @cached_property
    def collision_mesh(self) -> Mesh | None:
        """The same in fewer triangles."""
        return None if self.visual_mesh is None else self.scene.collision_mesh(self.visual_mesh)

    def has(self, role: str) -> bool:
        """Whether the world has such an artifact."""
        return role in self._keys

    def fetch(self, role: str) -> Path:
        """A local copy of an artifact.

        Raises:
            CatalogError: the world has none.
            StoreError: it cannot be read.
        """
        if role not in self._keys:
            raise CatalogError(
                f"world {self.record.world_id}: wanted its artifact {role}, found {', '.join(self._keys) or 'none'}; "
                "make it again with this one"
            )
        path = self._scratch / f"{role}-{Path(self._keys[role]).name}"
        if not path.exists():
            self._store.get_file(self._keys[role], path)
        return path


def world_facts(record: WorldRecord) -> dict[str, str | float | bool]:
    """What travels with an exported world: where it came from, whose it is, how far its numbers can be trusted.

    Unknown values are left out; lists are joined by commas.
    """
    names = (
        *("world_id", "name", "recipe", "model_name", "package_version", "algorithm_version"),
        *("seed_license", "seed_source_url", "seed_attribution", "output_license", "weights_licenses"),
        *("accepted_licenses", "metric_scale_source", "meters_per_unit", "meters_per_unit_prior", "scale_confidence"),
        *("up_source", "floor_z_m", "floor_rmse_m", "floor_confidence", "accepted"),
    )
    facts: dict[str, str | float | bool] = {}
    for name in names:
        value = getattr(record, name)
        if isinstance(value, tuple):
            value = ", ".join(value)
        if value is not None and value != "":
            facts[name] = value
    return facts
