"""Captions: from a manifest, from nothing, from a model in a folder."""

import pytest
import torch

from lyra_core.errors import LyraWarning, PromptError, WeightsError
from lyra_core.video.caption_list import captions_by_frame
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
    captions = captions_by_frame({0: "start", 81: "door", 200: "garden"}, 4)
    assert captions == ("start", "door", "door", "garden")
    with pytest.raises(PromptError, match="from frame 0 or 1 on"):
        captions_by_frame({40: "late"}, 1)


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
    with pytest.raises(WeightsError, match=r"captioner: wanted 'manifest' or the folder of .*'nowhere', which is no"):
        VisionLanguageCaptioner("nowhere")


@pytest.fixture(scope="module")
def tiny_vision_language_model(tmp_path_factory):
    """A folder with a complete model of the transformers library, of random weights: two layers of everything."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("vlm")
    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "a", "wall", "room", "door", "light", "stone", "green"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = transformers.LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=4, vision_feature_layer=-1
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    template = (
        "USER {% for part in messages[0]['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}"
    )
    transformers.LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def test_a_vision_language_model_describes_the_pictures(tiny_vision_language_model):
    def described(brightness, previews=0):
        image = torch.full((8, 12, 3), brightness, dtype=torch.uint8)
        asked = CaptionRequest(chunk=1, seed_image=image, last_image=255 - image, previews=(image,) * previews)
        return VisionLanguageCaptioner(tiny_vision_language_model, hint="a room").caption(asked)

    caption = described(20)
    assert caption
    assert caption == described(20)
    assert not set(caption.split()) & {"<image>", "<pad>", "</s>"}  # the answer only, without what was asked
    assert len(caption.split()) <= 160
    assert described(20, previews=2)


def test_a_model_is_read_once_and_only_when_asked(tiny_vision_language_model):
    captioner = VisionLanguageCaptioner(tiny_vision_language_model)
    assert captioner._model is None
    captioner.caption(request())
    model = captioner._model
    captioner.caption(request(1))
    assert captioner._model is model
