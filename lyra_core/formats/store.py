"""Opens a store by its URL; what a store does is said in store_interface.py."""

from __future__ import annotations

from pathlib import Path

from lyra_core.errors import StoreError
from lyra_core.formats.store_interface import ObjectInfo, Store, StoredObject, file_sha256

__all__ = ["ObjectInfo", "Store", "StoredObject", "file_sha256", "open_store"]


def open_store(url: str | Path, **storage_options: object) -> Store:
    """Open a store at a plain path, or at a file://, memory://, s3:// or any other fsspec URL.

    Nothing is contacted or created before the first call. For paths the one option is `fsync` (default True; False
    for scratch data that need not survive a power cut). For other URLs the options go to the fsspec file system;
    s3fs reads the standard AWS environment and configuration files itself.

    Raises:
        StoreError: no path or bucket; at the first call, an unknown protocol or options the client refuses.
        MissingExtraError: the client of s3:// and its like is not installed.
    """
    from lyra_core.formats.local_store import LocalStore
    from lyra_core.formats.object_store import MemoryStore, RemoteStore

    text = str(url)
    if not text:
        raise StoreError("a store needs a path or a URL such as /data/worlds or s3://bucket/prefix, found ''")
    protocol, separator, rest = text.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalStore(rest if separator else text, **storage_options)  # type: ignore[arg-type]
    if protocol == "memory":
        return MemoryStore(text, storage_options)
    if not rest.strip("/"):
        raise StoreError(
            f"a store needs a bucket or host after {protocol}://, found {text!r}; wanted {protocol}://bucket/prefix"
        )
    return RemoteStore(text, storage_options)
