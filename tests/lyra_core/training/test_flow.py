"""Both kinds of networks can be trained by the flow."""

from lyra_core.finetuning.released_networks import ReleasedNetworks
from lyra_core.mini.config import MINI_DIT
from lyra_core.mini.networks import MiniNetworks
from lyra_core.training.flow import VideoNetworks
from lyra_core.video.dit.network import TINY, build_dit


def test_both_kinds_of_networks_can_be_trained_by_the_flow():
    released = ReleasedNetworks(build_dit(TINY), text=len, image=len)
    assert isinstance(released, VideoNetworks)
    assert isinstance(MiniNetworks(MINI_DIT), VideoNetworks)
    assert not isinstance(released.dit, VideoNetworks)
