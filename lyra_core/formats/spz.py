"""Gaussians as SPZ version 3 (Niantic Labs), 13 times smaller than .ply: written by gsply, with axes turned here.

SPZ's axes are x right, y up, z backward; gsply stores numbers as they are. Version 4 is not read by every viewer
(Spark 2.2 refuses it), so version 3 is written. Positions have steps of 1/4096 unit and end at 2048 units.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lyra_core.errors import FormatError
from lyra_core.extras import require
from lyra_core.formats.ply import OPACITY_EPS, require_finite
from lyra_core.replacing import replacing
from lyra_core.values import Gaussians

# Half a turn about x takes OpenCV's axes (y down, z forward) to SPZ's, and a quaternion wxyz to (w, x, -y, -z).
TURN = torch.tensor([1.0, -1.0, -1.0])
# The same turn of each harmonic of degree 1 to 3: -1 where its polynomial has an odd number of factors y and z.
_TURNED_SH = torch.tensor([-1.0, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])
FRACTIONAL_BITS = 12
LIMIT = 2.0 ** (23 - FRACTIONAL_BITS)  # of 24-bit positions


def write_spz(gaussians: Gaussians, file: str | Path) -> None:
    """Write SPZ version 3, x right, y up, z backward.

    Raises:
        GaussiansError: nothing to write, or values that are not finite.
        FormatError: a centre beyond 2048 units, which SPZ would silently move.
        MissingExtraError: gsply is not installed.
    """
    require("gsply", "writing SPZ")
    import gsply

    require_finite(gaussians)
    far = int((gaussians.means.abs() >= LIMIT).any(1).sum())
    if far:
        raise FormatError(
            f"SPZ holds positions up to {LIMIT:.0f} units; {far} of {len(gaussians)} Gaussians lie farther; export "
            "another format, or only the part that key frames show"
        )
    turned = gaussians.to("cpu")
    sh, opacities = turned.sh.float(), turned.opacities.double().clamp(OPACITY_EPS, 1 - OPACITY_EPS)
    data = gsply.GSData(
        means=(turned.means * TURN).numpy(),
        scales=turned.scales.clamp_min(1e-30).log().numpy(),
        quats=torch.nn.functional.normalize(turned.quats * torch.cat([torch.ones(1), TURN]), dim=1).numpy(),
        opacities=torch.logit(opacities).float().numpy(),
        sh0=np.ascontiguousarray(sh[:, 0]),
        shN=(sh[:, 1:] * _TURNED_SH[: sh.shape[1] - 1, None]).numpy(),
    )
    with replacing(file) as temporary:
        gsply.write_spz(temporary, data, version=3, fractional_bits=FRACTIONAL_BITS)
