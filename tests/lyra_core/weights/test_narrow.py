"""An 8-bit set of the video network holds what loading makes of the whole one, and stands for it in ids."""

from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file

from lyra_core.errors import WeightsError
from lyra_core.video.dit.network import TINY, build_dit
from lyra_core.video.dit.scaled_linear import ScaledLinear
from lyra_core.video.dit.speed import narrow_layers
from lyra_core.weights.bundle import set_digests
from lyra_core.weights.convert import Labels, convert
from lyra_core.weights.manifest import manifest_digest
from lyra_core.weights.narrow import fitting_set, narrow_set
from lyra_core.weights.verify import verify
from lyra_core.world_models.networks import load_dit

CONFIG = replace(TINY, dim=32, ffn_dim=64, layout="f1k1f1s1f2k2_g2")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a converted set in bfloat16, and its 8-bit one in small shards."""
    folder = tmp_path_factory.mktemp("sets")
    network = build_dit(CONFIG, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, str(folder / "raw.safetensors"))
    labels = Labels(name="lyra2-dit", license="somebody", config=asdict(CONFIG))
    convert(folder / "raw.safetensors", folder / "lyra2-dit", "lyra2-dit", labels=labels)
    narrow_set(folder / "lyra2-dit", folder / "lyra2-dit-fast", shard_bytes=100_000)
    return folder


def test_it_loads_to_what_loading_makes_of_the_whole_set(sets):
    narrow, whole = load_dit(sets / "lyra2-dit-fast", "cpu"), load_dit(sets / "lyra2-dit", "cpu")
    layers = narrow_layers(whole, is_emulated=True)
    assert len(layers) == 8 * CONFIG.num_layers
    found, wanted = narrow.state_dict(), whole.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        # bytes, for 8-bit numbers have no comparison
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    block = narrow.blocks[0]
    assert isinstance(block.ffn[2], ScaledLinear)
    assert block.ffn[2].has_gelu
    assert isinstance(block.ffn[1], torch.nn.Identity), "GELU is part of the layer behind it"


def test_it_is_sound_smaller_and_stands_for_the_other_in_ids(sets):
    checked = verify(sets / "lyra2-dit-fast").manifest
    assert len(checked.files) > 1
    assert (checked.license, checked.name) == ("somebody", "lyra2-dit-fast")
    assert checked.total_bytes < verify(sets / "lyra2-dit").manifest.total_bytes
    homes = ({"dit": sets / "lyra2-dit"}, {"dit": sets / "lyra2-dit-fast"})
    assert set_digests(homes[0]) == set_digests(homes[1]) == (manifest_digest(sets / "lyra2-dit"),)
    assert not list(sets.glob("*.raw"))


def test_it_is_read_where_its_numbers_are_wanted(sets, tmp_path):
    whole, narrow = sets / "lyra2-dit", sets / "lyra2-dit-fast"
    assert fitting_set(whole, "fast", has_loras=False) == narrow
    assert fitting_set(whole, "exact", has_loras=False) == whole
    assert fitting_set(whole, "fast", has_loras=True) == whole
    assert fitting_set(narrow, "fastest", has_loras=False) == narrow
    with pytest.raises(WeightsError, match=r'video.speed is "exact"; bring the set it was made from'):
        fitting_set(narrow, "exact", has_loras=False)
    with pytest.raises(WeightsError, match="LoRA files cannot be merged"):
        fitting_set(narrow, "fast", has_loras=True)


def test_an_8_bit_set_of_other_weights_is_not_taken(sets, tmp_path):
    whole = tmp_path / "lyra2-dit"
    network = build_dit(CONFIG, generator=torch.Generator().manual_seed(1))
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, str(tmp_path / "raw.safetensors"))
    convert(tmp_path / "raw.safetensors", whole, "lyra2-dit", labels=Labels(name="own", config=asdict(CONFIG)))
    (tmp_path / "lyra2-dit-fast").symlink_to(sets / "lyra2-dit-fast")
    assert fitting_set(whole, "fast", has_loras=False) == whole


def test_what_cannot_be_narrowed_is_refused(sets, tmp_path):
    with pytest.raises(WeightsError, match="8-bit layers already"):
        narrow_set(sets / "lyra2-dit-fast", tmp_path / "again")
    with pytest.raises(WeightsError, match="exists already"):
        narrow_set(sets / "lyra2-dit", sets / "lyra2-dit-fast")
    other = tmp_path / "vae"
    save_file({"conv1.weight": torch.zeros(1)}, str(tmp_path / "vae.safetensors"))
    convert(tmp_path / "vae.safetensors", other, "tensors")
    with pytest.raises(WeightsError, match="holds 'tensors'"):
        narrow_set(other, tmp_path / "narrow")
