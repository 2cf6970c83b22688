"""The picture sizes that Cosmos 3 was trained at under camera control. No torch: planning reads them."""

from __future__ import annotations

from lyra_core.errors import RecipeError

# Width and height of the canvases of camera control, by resolution tier, as diffusers lists them.
_LANDSCAPE: dict[int, tuple[tuple[int, int], ...]] = {
    256: ((256, 256), (320, 256), (320, 192)),
    480: ((640, 640), (736, 544), (832, 480)),
    704: ((960, 960), (1088, 832), (1280, 704)),
    720: ((960, 960), (1104, 832), (1280, 720)),
}
CANVASES: dict[int, tuple[tuple[int, int], ...]] = {
    tier: tuple(dict.fromkeys(size for width, height in sizes for size in ((width, height), (height, width))))
    for tier, sizes in _LANDSCAPE.items()
}
SIZES = tuple(dict.fromkeys(size for sizes in CANVASES.values() for size in sizes))


def tier_of(width: int, height: int) -> int:
    """The resolution tier of a canvas: the first that has it.

    Raises:
        RecipeError: no canvas.
    """
    for tier, sizes in CANVASES.items():
        if (width, height) in sizes:
            return tier
    raise RecipeError(f"{width}x{height} is none of the canvases {', '.join(f'{w}x{h}' for w, h in SIZES)}")
