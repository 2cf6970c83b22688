"""Prompts as users write them."""

import subprocess
import sys

import pytest

from lyra_core.errors import PromptError
from lyra_core.video.caption_list import captions_of_chunks


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a room", ("a room",) * 3),
        ("", ("",) * 3),
        ("[sunlit] a room", ("[sunlit] a room",) * 3),
        ('["a", "b", "c"]', ("a", "b", "c")),
        ('{"0": "a", "81": "b"}', ("a", "b", "b")),
        ('{"0": "a", "82": "b"}', ("a", "a", "b")),
        ('{"161": "b", "1": "a"}', ("a", "a", "b")),
    ],
)
def test_one_caption_a_chunk(prompt, wanted):
    assert captions_of_chunks(prompt, 3) == wanted


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ('["a", "b"]', "each of 3 chunks, found 2"),
        ('["a", "b", 3]', "list of texts"),
        ('{"first": "a"}', "keyed by frame numbers, found first"),
        ('{"40": "a"}', "from frame 0 or 1 on"),
        ("{}", "from frame 0 or 1 on"),
    ],
)
def test_what_does_not_fit_is_said(prompt, message):
    with pytest.raises(PromptError, match=message):
        captions_of_chunks(prompt, 3)


def test_planning_does_not_load_torch():
    code = "import sys, tasks.plan, flows.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
