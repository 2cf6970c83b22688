"""Weights that wait in host memory come back as they were, once for all who use them."""

import torch
from torch import nn

from lyra_core import hosted_weights
from lyra_core.hosted_weights import HostedWeights


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3, bias=False)).eval()
    return layers.requires_grad_(False)


def test_a_module_computes_the_same_inside_and_waits_outside():
    module, x = network(), torch.randn(4, 5)
    wanted = module(x)
    waiting = HostedWeights(module, "cpu")
    home = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    with waiting:
        assert torch.equal(module(x), wanted)
        assert all(tensor.data_ptr() != home[name] for name, tensor in module.state_dict().items())
        with waiting:
            assert torch.equal(module(x), wanted)
        inside = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
        assert all(inside[name] != home[name] for name in home), "an inner user does not send it away"
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == home


def test_pieces_stay_small_and_what_stays_is_left_alone(monkeypatch):
    monkeypatch.setattr(hosted_weights, "PIECE_BYTES", 512)
    module, x = network(), torch.randn(4, 5)
    wanted, first = module(x), module[0].weight.data_ptr()
    waiting = HostedWeights(module, "cpu", stays=lambda name: name == "0.weight")
    assert module[0].weight.data_ptr() == first
    assert max(waiting.sizes) <= 512
    assert (
        waiting.num_bytes
        == sum(waiting.sizes)
        >= sum(t.nbytes for n, t in module.state_dict().items() if n != "0.weight")
    )
    with waiting:
        assert torch.equal(module(x), wanted)


def test_an_error_inside_sends_the_weights_home():
    module = network()
    waiting = HostedWeights(module, "cpu")
    home = module[0].weight.data_ptr()
    try:
        with waiting:
            raise ValueError("of the caller")
    except ValueError:
        pass
    assert module[0].weight.data_ptr() == home
