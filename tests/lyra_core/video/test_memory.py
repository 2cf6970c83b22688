"""Spatial memory: golden retrievals, the plain path, and what the corrected forms repair."""

import pytest
import torch
from safetensors.torch import load_file

from lyra_core.config.rollout import CORRECTED_MEMORY, REFERENCE_MEMORY, MemoryConfig
from lyra_core.errors import FrameError, RecipeError
from lyra_core.video.memory import SpatialMemory, query_offsets


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_file(golden_dir / "memory.safetensors")


def filled(golden, golden_depth, frames, w2c, config=REFERENCE_MEMORY):
    height, width = golden["unproject.depth"].shape[-2:]
    memory = SpatialMemory(height, width, config)
    frames = [int(i) for i in frames]
    memory.add(
        frames,
        golden_depth(frames, height, width),
        w2c[frames],
        golden["K"].expand(len(frames), 3, 3),
    )
    return memory


def flat_world(num_frames=6, config=REFERENCE_MEMORY, height=32, width=48):
    """A wall 4 m away; camera i stands i metres to the right."""
    K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    w2c = torch.eye(4).repeat(num_frames, 1, 1)
    w2c[:, 0, 3] = -torch.arange(num_frames, dtype=torch.float32)
    memory = SpatialMemory(height, width, config)
    ids = [8 * i for i in range(num_frames)]
    memory.add(ids, torch.full((num_frames, height, width), 4.0), w2c, K.expand(num_frames, 3, 3))
    return memory, w2c, K


@pytest.mark.parametrize("backend", ["numba", "torch"])
class TestGolden:
    def test_golden_retrieve_greedy(self, golden, golden_depth, backend):
        memory = filled(golden, golden_depth, golden["cache.frame_ids"], golden["w2c"])
        keys = [key for key in golden if key.startswith("retrieve.greedy.t")]
        assert keys
        for key in keys:
            target = int(key.removeprefix("retrieve.greedy.t"))
            found = memory.retrieve(golden["w2c"][[target]], golden["K"][None], backend)
            assert list(found) == golden[key].tolist()

    def test_golden_retrieve_multiview(self, golden, golden_depth, backend):
        memory = filled(golden, golden_depth, golden["cache.frame_ids"], golden["w2c"])
        cameras = golden["w2c"][[100, 120, 140, 160]]
        found = memory.retrieve(cameras, golden["K"].expand(4, 3, 3), backend)
        assert list(found) == golden["retrieve.greedy.multiview"].tolist()

    def test_golden_retrieve_first_chunk(self, golden, golden_depth, backend):
        memory = filled(golden, golden_depth, [0], golden["w2c"])
        found = memory.retrieve(golden["w2c"][[80]], golden["K"][None], backend)
        assert list(found) == golden["retrieve.first_chunk"].tolist()

    def test_golden_retrieve_loop(self, golden, golden_depth, backend):
        w2c = golden["retrieve.loop.w2c"]
        memory = filled(golden, golden_depth, range(0, 153, 8), w2c)
        keys = [key for key in golden if key.startswith("retrieve.loop.t")]
        assert keys
        for key in keys:
            target = int(key.removeprefix("retrieve.loop.t"))
            found = memory.retrieve(w2c[[target]], golden["K"][None], backend)
            assert list(found) == golden[key].tolist()


def test_golden_cache_points(golden, golden_depth):
    memory = filled(golden, golden_depth, golden["cache.frame_ids"], golden["w2c"])
    keys = [key for key in golden if key.startswith("cache.world_points_")]
    assert keys
    for key in keys:
        at = memory.frame_ids.index(int(key.removeprefix("cache.world_points_")))
        wanted = golden[key][0]
        assert (memory.points[at] - wanted).abs().max() <= 1e-5 * wanted.abs().max()


class TestRetrieval:
    def test_newest_frame_is_left_out_and_its_view_counts_as_covered(self):
        memory, w2c, K = flat_world()
        found = memory.retrieve(w2c[[4]], K[None])
        assert 40 not in found
        # 5 m to the right covers the right part of the query; 3 m and less must cover the left.
        assert found[-1] == 32

    @pytest.mark.parametrize("config", [REFERENCE_MEMORY, CORRECTED_MEMORY])
    def test_paths_agree(self, config):
        generator = torch.Generator().manual_seed(3)
        memory, w2c, K = flat_world(num_frames=2, config=config)
        depth = 1 + 4 * torch.rand(40, 32, 48, generator=generator)
        depth[depth < 1.3] = 0
        poses = torch.eye(4).repeat(40, 1, 1)
        poses[:, :3, 3] = torch.randn(40, 3, generator=generator)
        memory.add(range(100, 140), depth, poses, K.expand(40, 3, 3))
        queries = torch.cat([poses[:3], w2c])
        args = (queries, K.expand(5, 3, 3))
        assert memory.retrieve(*args, "numba") == memory.retrieve(*args, "torch")
        assert torch.equal(memory._coverage(*args, "numba"), memory._coverage(*args, "torch"))

    def test_one_query_is_the_last_camera(self):
        assert query_offsets(1) == [79]
        assert query_offsets(4) == [19, 39, 59, 79]

    def test_nothing_is_remembered_nothing_is_found(self):
        memory = SpatialMemory(32, 48)
        assert memory.retrieve(torch.eye(4)[None], torch.eye(3)[None]) == ()

    def test_adding_bit_by_bit_equals_adding_at_once(self, golden, golden_depth):
        height, width = golden["unproject.depth"].shape[-2:]
        ids = list(range(0, 160, 4))
        depth, w2c = golden_depth(ids, height, width), golden["w2c"][ids]
        K = golden["K"].expand(len(ids), 3, 3)
        once, steps = SpatialMemory(height, width), SpatialMemory(height, width)
        once.add(ids, depth, w2c, K)
        for i in range(0, len(ids), 3):
            steps.add(ids[i : i + 3], depth[i : i + 3], w2c[i : i + 3], K[i : i + 3])
        assert torch.equal(once.points, steps.points)
        assert once.frame_ids == steps.frame_ids


class TestCorrected:
    def test_invalid_depth_is_no_point_at_the_origin(self):
        """A frame without any depth must not be retrieved because its missing pixels pile up at the world origin."""
        K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
        w2c = torch.eye(4)
        w2c[2, 3] = 3.0  # the camera looks at the world origin from 3 m

        def retrieve(invalid_at_origin):
            memory = SpatialMemory(32, 48, MemoryConfig(invalid_at_origin=invalid_at_origin))
            memory.add([0], torch.zeros(1, 32, 48), torch.eye(4)[None], K[None])
            return memory.retrieve(w2c[None], K[None])

        assert retrieve(True) == (0,)  # the released model hallucinates coverage
        assert retrieve(False) == ()

    def test_occlusion_tolerance_follows_the_scale_of_the_scene(self):
        """In a scene of a few centimetres 0.1 m tolerates everything; a fraction of the depth does not."""
        K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
        cameras = torch.eye(4).repeat(2, 1, 1)

        def seen(config, scale):
            memory = SpatialMemory(32, 48, config)
            depth = torch.stack([torch.full((32, 48), 1.0), torch.full((32, 48), 1.5)]) * scale
            memory.add([0, 8], depth, cameras, K.expand(2, 3, 3))
            return int(memory._coverage(cameras[:1], K[None], "auto")[1].sum())

        corrected = MemoryConfig(occlusion_tolerance_m=0.0, occlusion_tolerance_relative=0.03)
        assert [seen(REFERENCE_MEMORY, s) > 0 for s in (1.0, 0.05)] == [
            False,
            True,
        ]  # occluded, yet "seen" when small
        assert [seen(corrected, s) > 0 for s in (1.0, 0.05)] == [False, False]

    def test_several_query_cameras_find_what_the_chunk_passes(self):
        """A chunk that ends where nothing was ever seen: the reference form asks from its last camera only."""
        memory, _, K = flat_world(num_frames=3)
        path = torch.eye(4).repeat(80, 1, 1)
        path[:, 0, 3] = torch.linspace(0, 200.0, 80)  # leaves to the left, where nothing was ever seen
        path[:20, 0, 3] = torch.linspace(0.0, 3.0, 20)

        def retrieve(num):
            at = query_offsets(num)
            return memory.retrieve(path[at], K.expand(len(at), 3, 3))

        assert retrieve(1) == ()
        assert set(retrieve(4)) == {0, 8}


class TestErrors:
    def test_wrong_size(self):
        with pytest.raises(FrameError, match="48x32 images"):
            SpatialMemory(32, 48).add([0], torch.ones(1, 32, 40), torch.eye(4)[None], torch.eye(3)[None])

    def test_twice(self):
        memory, w2c, K = flat_world(num_frames=2)
        with pytest.raises(FrameError, match=r"\[8\] are in the memory already"):
            memory.add([8], torch.ones(1, 32, 48), w2c[:1], K[None])

    def test_photograph_needs_its_image(self):
        memory, w2c, K = flat_world(num_frames=2)
        with pytest.raises(FrameError, match="need their images"):
            memory.add([-1], torch.ones(1, 32, 48), w2c[:1], K[None])
        memory.add(
            [-1],
            torch.ones(1, 32, 48),
            w2c[:1],
            K[None],
            torch.zeros(1, 32, 48, 3, dtype=torch.uint8),
        )
        assert memory.view(-1).image is not None

    def test_unknown_frame(self):
        with pytest.raises(FrameError, match="not in the memory"):
            SpatialMemory(32, 48).view(3)

    def test_config(self):
        with pytest.raises(RecipeError, match="num_retrieved must be at least 1"):
            MemoryConfig(num_retrieved=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_finds_the_same_frames(golden, golden_depth):
    height, width = golden["unproject.depth"].shape[-2:]
    ids = [int(i) for i in golden["cache.frame_ids"]]
    memory = SpatialMemory(height, width, device="cuda")
    memory.add(ids, golden_depth(ids, height, width), golden["w2c"][ids], golden["K"].expand(len(ids), 3, 3))
    for key in (key for key in golden if key.startswith("retrieve.greedy.t")):
        target = int(key.removeprefix("retrieve.greedy.t"))
        found = memory.retrieve(golden["w2c"][[target]].cuda(), golden["K"][None].cuda())
        assert list(found) == golden[key].tolist()
