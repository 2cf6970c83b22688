"""What every world model does: turn a photograph into a clip and the clip into Gaussians.

A model knows its native size, frame rule and prompt, so the photograph and a camera path are enough. Batches ask for
what their recipe says instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from lyra_core.gaussians.reconstruct import ReadyToFuse, ReconstructionReport
from lyra_core.native import Native
from lyra_core.provenance import Provenance
from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip


@runtime_checkable
class WorldModel(Protocol):
    """What the factory asks of a model.

    Attributes:
        name: as in `MODELS`.
        weights_digest: identifies the weights (or, without weights, the code), for whoever keeps what a model made.
        native: the size, frame rule and prompt that generate takes where none is given, and what else it can work at.
        provenance: how it computes, for the catalog.
    """

    name: str
    weights_digest: str

    @property
    def native(self) -> Native:
        """See the class."""
        ...

    @property
    def provenance(self) -> Provenance:
        """See the class."""
        ...

    def generate(
        self,
        image: Seed | str | Path | Image.Image | np.ndarray | Tensor,
        camera_path: CameraPath | str,
        *,
        num_frames: int = 81,
        seed: int = 0,
        prompts: Sequence[str] | None = None,
        width: int | None = None,
        height: int | None = None,
        on_frame: Callable[[int, int], None] | None = None,
        chunk_ids: Sequence[str] | None = None,
        chunk_dir: str | Path | None = None,
    ) -> VideoClip:
        """A video of the photograph's world along the path; equal arguments give equal bytes on a CPU.

        Without width and height it has the model's native size; a size that the model cannot work at is a FrameError.
        The factory gives the world's chunk_ids, from which all noise derives in place of `seed`, and a chunk_dir of
        the world's own, in which a model may keep finished chunks: called again with both, it goes on from them.
        """
        ...

    def reconstruct(
        self,
        clip: VideoClip,
        *,
        chunk_dir: str | Path | None = None,
        on_report: Callable[[ReconstructionReport], None] | None = None,
    ) -> Gaussians:
        """The clip's world as 3D Gaussians, in the frame of its cameras, from the clip alone.

        A model that lifts videos chunk by chunk keeps them in chunk_dir and tells on_report how it went.
        """
        ...


@runtime_checkable
class TwoStepModel(WorldModel, Protocol):
    """A model whose reconstruction ends without its networks, so that a worker may begin the next world meanwhile."""

    def lift(self, clip: VideoClip, chunk_dir: Path) -> ReadyToFuse | None:
        """The first half of `reconstruct`, with the networks; None: this clip's reconstruction is not to be split."""
        ...

    def fuse(
        self, ready: ReadyToFuse, clip: VideoClip, on_report: Callable[[ReconstructionReport], None] | None = None
    ) -> Gaussians:
        """The second half, on the CPU; both together give the bytes of `reconstruct`."""
        ...
