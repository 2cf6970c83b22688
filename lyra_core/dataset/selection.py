"""Worlds of a snapshot, chosen by conditions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core import snapshot
from lyra_core.dataset.cache import FileCache
from lyra_core.dataset.frames import PosedFrames
from lyra_core.dataset.sources import FrameSource, NewPaths, WorldEntry
from lyra_core.dataset.split import SHARES, split_of
from lyra_core.errors import CatalogError, ConfigError
from lyra_core.extras import require
from lyra_core.formats.store import Store, open_store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSet:
    """Some worlds of one version of a catalog; every method returns another set.

    Attributes:
        store: where their files lie.
        version: of the snapshot.
        table: their rows, ordered by world id, with all columns of `worlds`.
    """

    store: Store
    version: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def where(self, condition: str | pc.Expression) -> WorldSet:
        """Those for which a condition holds.

        Args:
            condition: SQL over the columns of `worlds`, such as "accepted AND floor_rmse_m < 0.05"; or a pyarrow
                expression, which needs no DuckDB.

        Raises:
            CatalogError: bad SQL, with the columns there are; or it asks for `drop_test_ok`, which no snapshot holds.
            MissingExtraError: SQL without DuckDB.
        """
        if not isinstance(condition, str):
            return replace(self, table=self.table.filter(condition))
        if "drop_test_ok" in condition:
            raise CatalogError(
                "drop_test_ok is measured after a snapshot and is null there; choose by ids instead: "
                "worlds.only(catalogs.query.query(store, 'SELECT world_id FROM simchecks WHERE drop_test_ok')"
                "['world_id'].to_pylist())"
            )
        return self.only(_chosen(self.table, condition))

    def only(self, world_ids: Collection[str]) -> WorldSet:
        """Those with one of these ids."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(sorted(world_ids), pa.string())
        return replace(self, table=self.table.filter(pc.is_in(self.table["world_id"], wanted)))

    def split(self, name: str, shares: Mapping[str, float] = SHARES) -> WorldSet:
        """One part of a split by photograph: no photograph is in two, whatever else the set holds.

        Args:
            name: a key of `shares`.
            shares: of photographs, summing to 1; the same for all parts of one split.

        Raises:
            ConfigError: no such part, or impossible shares.
            CatalogError: a row does not say which photograph it comes from.
        """
        if name not in shares:
            raise ConfigError(f"a split has the parts {', '.join(shares)}, found {name!r}")
        seeds = self.table["seed_sha256"].to_pylist()
        if None in seeds:
            raise CatalogError(
                f"{seeds.count(None)} worlds do not say which photograph they come from (seed_sha256 is null), so a "
                'split could put one photograph into two parts; leave them out with where("seed_sha256 IS NOT NULL")'
            )
        return replace(self, table=self.table.filter([split_of(seed, shares) == name for seed in seeds]))

    def frames(
        self,
        *,
        paths: NewPaths | None = None,
        depth: bool = False,
        dtype: str = "uint8",
        size: tuple[int, int] | None = None,
        every: int = 1,
        seed: int | None = None,
        shard: tuple[int, int] | None = None,
        cache: FileCache | None = None,
    ) -> PosedFrames:
        """Posed frames as a torch IterableDataset; see `PosedFrames`.

        Args:
            paths: render along new camera paths instead of reading the stored videos.
            depth: z-depth of the surface that the Gaussians show, in world units.
            dtype: of images: "uint8" (0 to 255) or "float32" (0 to 1).
            size: height and width to resize to; None: as stored, and then all worlds must have one size.
            every: 1 for all frames, 2 for every other one, ...
            seed: of the shuffle; None: in order.
            shard: rank and number of ranks; None: those of torch.distributed where it is initialised, else 0 of 1.
            cache: of remote files and of depth; the default folder if None.

        Raises:
            CatalogError: no worlds, worlds without the files that are needed, or of several sizes.
            ConfigError: an impossible option.
        """
        source = FrameSource(self.store, cache or FileCache(), paths=paths, depth=depth, size=size)
        rows = self.table.select(WorldEntry.columns()).to_pylist()
        entries = [WorldEntry.from_row(row) for row in rows]
        return PosedFrames(source, entries, dtype=dtype, every=every, seed=seed, shard=shard)


def open_dataset(uri: str | Path, *, version: int | None = None) -> WorldSet:
    """The worlds of a catalog as of a snapshot.

    Args:
        uri: where worlds are stored: a path, s3:// or another fsspec URL.
        version: of the snapshot, the latest if None; name it in experiments that are to be repeated.

    Raises:
        CatalogError: there is no such snapshot, or it cannot be read.
    """
    store = open_store(uri)
    ref = snapshot.latest(store) if version is None else snapshot.read(store, version)
    if ref is None:
        raise CatalogError(
            f"{store.root} has no snapshot, and a data set is a numbered version; make worlds there with lyra run, "
            "which adds one, or check the path"
        )
    return WorldSet(store=store, version=ref.version, table=snapshot.table(store, ref, "worlds").sort_by("world_id"))


def _chosen(table: pa.Table, condition: str) -> list[str]:
    require("duckdb", "choosing worlds by SQL")
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    try:
        connection.execute("SET python_enable_replacements = false")
        connection.register("worlds", table)
        # Whoever writes the condition may not therefore read this machine's files.
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        rows = connection.sql(f"SELECT world_id FROM worlds WHERE {condition}").fetchall()
    except duckdb.Error as error:
        raise CatalogError(
            f"the condition {condition!r} failed: {error}\ncolumns: {', '.join(table.column_names)}"
        ) from error
    finally:
        connection.close()
    return [row[0] for row in rows]
