"""What a model was made for: the size of its frames, how many there may be, and its words where nobody gives any.

No torch here: planning refuses a size that the model cannot work at, and loads no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lyra_core.errors import FrameError

CHUNK_FRAMES = 80
"""Frames that a world grows by: its video has 1 + 80 k of them."""
FRAMES_PER_SECOND = 16.0
MINI_ENLARGED = 4
"""How many times the super-resolution of the embedded model enlarges frames, along each side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """The defaults of a model's `generate`, and what else it can work at.

    Attributes:
        size: width and height of its frames, pixels; exchanged for photographs of the other orientation.
        side_step: the sides of frames of another size are multiples of it, pixels.
        min_side: no side is shorter, pixels.
        sizes: the only sizes (width, height) it works at; empty where steps and shortest side say all.
        chunk_frames: a video has 1 + chunk_frames k frames.
        prompt: the caption where the caller gives none; None: the model has no words of its own.
        captions: what it was trained with, for people.
    """

    size: tuple[int, int]
    side_step: int = 1
    min_side: int = 16
    sizes: tuple[tuple[int, int], ...] = ()
    chunk_frames: int = 1
    prompt: str | None = None
    captions: str = field(default="captions", compare=False)

    def chosen_size(self, width: int | None, height: int | None) -> tuple[int, int]:
        """The size that is asked for, the native one where none is.

        Raises:
            FrameError: one side without the other, or sides the model cannot work at.
        """
        if width is None and height is None:
            return self.size
        if width is None or height is None:
            side = "height" if height is None else "width"
            raise FrameError(
                f"a size has a width and a height, found no {side}; give both, or neither for {self._native_size}"
            )
        self.require_size(width, height)
        return width, height

    def require_size(self, width: int, height: int) -> None:
        """Check that the model can work at a size.

        Raises:
            FrameError: it cannot; the message names what is allowed.
        """
        if self.sizes and (width, height) not in self.sizes:
            # the nearest first: photographs of another shape are cropped to it
            order = sorted(self.sizes, key=lambda size: (abs(size[0] / size[1] - width / height), abs(size[0] - width)))
            known = ", ".join(f"{w}x{h}" for w, h in order[:4])
            raise FrameError(
                f"frames must have one of the sizes the model was trained at, found {width}x{height}; the nearest are "
                f"{known}, the model's own is {self._native_size}"
            )
        fits = all(side >= self.min_side and side % self.side_step == 0 for side in (width, height))
        if not fits:
            raise FrameError(
                f"frames must be multiples of {self.side_step} pixels on both axes and at least {self.min_side}, found "
                f"{width}x{height}; the model's own size is {self._native_size}"
            )

    def enlarged(self, factor: int) -> Native:
        """The same model with its frames enlarged so many times along each side afterwards."""
        width, height = self.size
        return replace(
            self,
            size=(factor * width, factor * height),
            side_step=factor * self.side_step,
            min_side=factor * self.min_side,
        )

    def require_frames(self, num_frames: int) -> None:
        """Check the length of a video.

        Raises:
            FrameError: not 1 + chunk_frames k frames, with k at least 1; the message names the nearest.
        """
        step = self.chunk_frames
        if num_frames <= step or (num_frames - 1) % step:
            below = 1 + step * max(1, (num_frames - 1) // step)
            raise FrameError(
                f"a video has 1 + {step}k frames, found {num_frames}; the nearest are {below} and {below + step}"
            )

    @property
    def _native_size(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"
