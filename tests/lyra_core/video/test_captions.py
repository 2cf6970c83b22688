"""Captions: from a manifest, from nothing, from a model in a folder."""

import pytest
import torch

from lyra_core.errors import LyraWarning, PromptError, WeightsError
from lyra_core.video.captions import (
    CaptionRequest,
    ManifestCaptions,
    NoCaptions,
    VisionLanguageCaptioner,
    build_messages,
)


def request(chunk=0):
    image = torch.zeros(8, 8, 3, dtype=torch.uint8)
    return CaptionRequest(chunk=chunk, seed_image=image, last_image=image)


def test_one_or_one_a_chunk():
    assert ManifestCaptions(["a"]).caption(request(5)) == "a"
    assert [ManifestCaptions(["a", "b"]).caption(request(k)) for k in (0, 1)] == ["a", "b"]
    with pytest.raises(PromptError, match="for each of 3 chunks, found 2"):
        ManifestCaptions(["a", "b"]).require(3)
    with pytest.raises(PromptError, match="empty list"):
        ManifestCaptions([])


def test_captions_by_frame_hold_until_the_next():
    captions = ManifestCaptions.from_frames({0: "start", 81: "door", 200: "garden"}, num_chunks=4)
    assert captions.captions == ("start", "door", "door", "garden")
    with pytest.raises(PromptError, match="from frame 0 or 1 on"):
        ManifestCaptions.from_frames({40: "late"}, num_chunks=1)


def test_no_captions_warn_where_they_are_missed():
    assert NoCaptions(network_reads_text=False).caption(request()) == ""
    with pytest.warns(LyraWarning, match="trained with captions"):
        assert NoCaptions(network_reads_text=True).caption(request()) == ""


def test_messages_show_every_picture_and_the_hint():
    message = build_messages(4, "my grandmother's kitchen")[0]
    assert [part["type"] for part in message["content"]] == ["image"] * 6 + ["text"]
    assert "my grandmother's kitchen" in message["content"][-1]["text"]
    assert "preview" in message["content"][-1]["text"]
    assert "preview" not in build_messages(0)[0]["content"][-1]["text"]


def test_folder_without_a_model(tmp_path):
    with pytest.raises(WeightsError, match="must hold a vision-language model"):
        VisionLanguageCaptioner(tmp_path).caption(request())
