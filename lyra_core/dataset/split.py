"""Train, validation and test by photograph: all worlds of one photograph are in the same part, today and tomorrow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from lyra_core.errors import ConfigError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def split_of(seed_sha256: str, shares: Mapping[str, float] = SHARES) -> str:
    """The part that a photograph belongs to, by the digest of its file alone.

    It does not depend on what else is in the data set, so no photograph moves when worlds are added. The same picture
    saved anew has other bytes and counts as another photograph.

    Raises:
        ConfigError: shares that are negative or do not sum to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise ConfigError(f"shares of a split are at least 0 and sum to 1, found {dict(shares)}")
    draw = int.from_bytes(hashlib.sha256(f"split {seed_sha256}".encode()).digest()[:8], "big") / 2**64
    bound = 0.0
    for name, share in shares.items():
        bound += share
        if draw < bound:
            return name
    return next(name for name, share in reversed(list(shares.items())) if share > 0)
