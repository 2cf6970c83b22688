import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lyra_core.errors import RecipeError, WeightsError
from lyra_core.video.text import (
    UMT5_XXL,
    TextConfig,
    build_text_encoder,
    clean_caption,
    distance_buckets,
    encode_captions,
    load_tokenizer,
)

TINY = TextConfig(vocabulary=12, dim=8, attention_dim=8, ffn_dim=16, num_heads=2, num_layers=1)


@torch.no_grad()
def test_golden_embeddings(golden_dir, assert_close):
    path = golden_dir / "encoders_tiny.safetensors"
    golden = load_file(path)
    with safe_open(path, "pt") as file:
        cfg = json.loads(file.metadata()["t5"])
    config = TextConfig(
        vocabulary=cfg["vocab_size"],
        dim=cfg["dim"],
        attention_dim=cfg["dim_attn"],
        ffn_dim=cfg["dim_ffn"],
        num_heads=cfg["num_heads"],
        num_layers=cfg["encoder_layers"],
        num_buckets=cfg["num_buckets"],
    )
    encoder = build_text_encoder(config)
    weights = {k.removeprefix("t5.sd."): v for k, v in golden.items() if k.startswith("t5.sd.")}
    encoder.load_state_dict({key: value.float() for key, value in weights.items()})
    is_token = golden["t5.mask"].bool()
    found = encoder(golden["t5.ids"], is_token)
    assert_close(found, golden["t5.out_zero_padded"])
    assert_close(found[is_token], golden["t5.out"][is_token])


def test_full_size_parameters():
    encoder = build_text_encoder(UMT5_XXL, device="meta")
    state = encoder.state_dict()
    assert sum(value.numel() for value in state.values()) == 5_680_910_336
    assert state["token_embedding.weight"].shape == (256384, 4096)
    assert state["blocks.23.ffn.gate.0.weight"].shape == (10240, 4096)
    assert state["blocks.0.pos_embedding.embedding.weight"].shape == (32, 64)


def test_buckets_single_steps_then_logarithmic():
    buckets = distance_buckets(300, 32, torch.device("cpu"))
    assert buckets[10, 10] == 0
    assert buckets[10, 7] == 3
    assert buckets[10, 13] == 16 + 3
    assert buckets[200, 0] == 15
    assert buckets[0, 299] == 31
    assert (buckets[0].diff()[1:] >= 0).all()


@torch.no_grad()
def test_padding_changes_nothing():
    encoder = build_text_encoder(TINY)
    ids = torch.tensor([[3, 4, 5, 0, 0, 0]])
    is_token = ids > 0
    padded = encoder(ids, is_token)
    assert torch.allclose(padded[:, :3], encoder(ids[:, :3], is_token[:, :3]), atol=1e-6)
    assert (padded[:, 3:] == 0).all()
    other = encoder(torch.tensor([[3, 4, 5, 9, 9, 9]]), is_token)
    assert torch.equal(other, padded)


def test_captions_are_cleaned():
    assert clean_caption("  A \u201cquiet\u201d\n\troom &amp;amp; caf\u0065\u0301  ") == 'A "quiet" room & caf\u00e9'
    assert clean_caption("\uff21 \ufb01ne\x00 day\u2019s") == "A fine day's"


def test_tokenizer_comes_from_a_folder(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "room": 4}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    encoder = build_text_encoder(TINY)
    found = encode_captions(encoder, load_tokenizer(tmp_path), [" a   room", "a a a"], length=5)
    assert found.shape == (2, 5, 8)
    assert (found[0, 2:] == 0).all()
    assert (found[1, 2] != 0).any()
    direct = encoder(torch.tensor([[3, 4]]), torch.ones(1, 2, dtype=torch.bool))
    assert torch.allclose(found[0, :2], direct[0], atol=1e-6)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere' is none"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_impossible_widths_are_refused():
    with pytest.raises(RecipeError):
        TextConfig(vocabulary=9, dim=8, attention_dim=9, ffn_dim=8, num_heads=2, num_layers=1)
