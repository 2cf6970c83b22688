"""A picture in the terminal: upright or wide, it fits a screen."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from flows.cli.peek import PICTURE_LINES, half_blocks


@pytest.mark.parametrize(("width", "height", "columns"), [(416, 240, 72), (240, 416, 27), (64, 64, 48), (4, 400, 1)])
def test_pictures_keep_their_shape_and_fit(width, height, columns):
    data = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 10)).save(data, "PNG")
    lines = half_blocks(data.getvalue(), 72).plain.splitlines()
    assert len(lines) <= PICTURE_LINES
    assert {len(line) for line in lines} == {columns}
    if height < 400:
        assert len(lines) * 2 == pytest.approx(columns * height / width, abs=2)
