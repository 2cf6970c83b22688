"""Names for worlds that follow from what makes them: same inputs, same id, on every machine and in every run.

A world is made chunk by chunk, and its id is the last link of a chain over the chunks:

    c_-1 = H(seed bytes, recipe fields that change the output, weights, algorithm version, variant)
    c_k  = H(c_{k-1}, cameras requested for chunk k, caption k)
    world id = last c

A longer camera path therefore shares its first links with a shorter one, which is how a finished world is extended.
Every random draw derives from these ids through `rng_seed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lyra_core.canonical_json import canonical_json
from lyra_core.errors import RecipeError, StoreError
from lyra_core.extras import require_client
from lyra_core.public_uri import public_uri

if TYPE_CHECKING:
    from lyra_core.formats.store import Store

# 128 bits: among 10^9 worlds two ids collide with probability about 10^-21, and 32 characters still fit into a
# path, a table row and a person's clipboard.
ID_LENGTH = 32
_TAG = "lyra-worlds/1"
# One version for every model and stage. Raise it when equal inputs give other pixels or other Gaussians, so that worlds
# of the old code are not taken for worlds of the new. History: docs/decisions/0004.
ALGORITHM_VERSION = "3"
_READ_BLOCK = 4 << 20


def chain_start(
    seed_sha256: str,
    recipe_fields: Mapping[str, object],
    weights_digests: Sequence[str],
    algorithm_version: str,
    variant: int,
) -> str:
    """The link before the first chunk.

    Args:
        seed_sha256: digest of the seed file's bytes, 64 hex digits.
        recipe_fields: what changes the output, as requested (1 and 1.0 are different requests).
        weights_digests: SHA-256 of each weight file; their order does not matter.
        algorithm_version: changes when the same inputs give other pixels.
        variant: 0, 1, 2, ... for several worlds of one seed.

    Raises:
        RecipeError: a digest that is none, a negative variant, or a field without a canonical form.
    """
    for digest in (seed_sha256, *weights_digests):
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise RecipeError(f"a SHA-256 digest has 64 lower-case hex digits, found {digest!r}")
    if variant < 0:
        raise RecipeError(f"a variant is 0, 1, 2, ..., found {variant}")
    fields = {
        "seed": seed_sha256,
        "recipe": recipe_fields,
        "weights": sorted(weights_digests),
        "algorithm": algorithm_version,
        "variant": int(variant),
    }
    return _link("start", canonical_json(fields).encode())


def chain_next(previous: str, cameras_requested: bytes | str, caption: str) -> str:
    """The link of a chunk, from the link before it, the cameras asked of it and its caption."""
    cameras = cameras_requested if isinstance(cameras_requested, bytes) else cameras_requested.encode()
    return _link("chunk", previous.encode(), cameras, caption.encode())


def chunk_ids(start: str, cameras_requested: Sequence[bytes | str], captions: Sequence[str]) -> tuple[str, ...]:
    """The links of all chunks, in order.

    Raises:
        RecipeError: no chunk, or not one caption a chunk.
    """
    if not cameras_requested or len(cameras_requested) != len(captions):
        raise RecipeError(
            f"a world needs at least one chunk and one caption a chunk, found {len(cameras_requested)} chunks "
            f"and {len(captions)} captions"
        )
    links = []
    for cameras, caption in zip(cameras_requested, captions, strict=True):
        start = chain_next(start, cameras, caption)
        links.append(start)
    return tuple(links)


def rng_seed(id: str, stage: str, chunk: int = 0) -> int:  # noqa: A002 - the field's word for it
    """A seed of 63 bits for the random draws of one stage of one chunk."""
    digest = _digest("rng", id.encode(), stage.encode(), str(int(chunk)).encode())
    return int.from_bytes(digest[:8], "big") >> 1


def digest_bytes(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(source: str | Path, store: Store | None = None) -> str:
    """SHA-256 of a file, hex: a path, an fsspec URL, or a key of `store`. Read in blocks.

    Raises:
        StoreError: it cannot be read.
        MissingExtraError: the client of its protocol is not installed.
    """
    import fsspec

    if store is not None:
        return digest_bytes(store.read_bytes(str(source)))
    require_client(str(source), f"reading {public_uri(str(source))}")
    digest = hashlib.sha256()
    try:
        with fsspec.open(str(source), "rb") as stream:
            while block := stream.read(_READ_BLOCK):
                digest.update(block)
    except (OSError, ValueError, ImportError) as error:
        raise StoreError(f"cannot read {source} to digest it: {error}") from error
    return digest.hexdigest()


def canonical_digest(mapping: Mapping[str, object]) -> str:
    """SHA-256 of a mapping's canonical form, hex: independent of key order, exact in every float.

    Raises:
        RecipeError: a value without a canonical form.
    """
    return _digest("mapping", canonical_json(mapping).encode()).hex()


def _link(kind: str, *parts: bytes) -> str:
    return _digest(kind, *parts).hex()[:ID_LENGTH]


def _digest(kind: str, *parts: bytes) -> bytes:
    """SHA-256 over tagged, length-prefixed parts: no two different lists of parts give the same input."""
    digest = hashlib.sha256(f"{_TAG}/{kind}\n".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
