"""Writes a folder of the golden vectors' form at other widths, sizes and cameras, computed by this project.

    python tests/lyra_core/video/other_golden.py FOLDER && LYRA_GOLDEN_DIR=FOLDER pytest -k golden tests/lyra_core

Its numbers prove nothing; that the tests accept them proves that no test knows a width, a size or a camera by heart.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lyra_core.geometry.warp import (
    WarpSource,
    forward_warp,
    is_reliable,
    project_integer,
    unproject_integer,
)
from lyra_core.video.correspondence import canonical_coordinates
from lyra_core.video.dit.network import TINY, DiTConfig, build_dit, expand_patch_embedding
from lyra_core.video.dit.packing import camera_tokens
from lyra_core.video.dit.rope import packed_angles
from lyra_core.video.image import ImageConfig, build_image_encoder, encode_images, preprocess_images
from lyra_core.video.memory import SpatialMemory
from lyra_core.video.rays import camera_rays, latent_cells, relative_cameras
from lyra_core.video.sampler import guided_velocity, reference_noise, sample_distilled, sample_unipc
from lyra_core.video.schedule import distilled_schedule, unipc_schedule
from lyra_core.video.text import TextConfig, build_text_encoder
from lyra_core.video.vae.network import TINY_VAE, build_vae

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "golden"
HEIGHT, WIDTH, NUM_CAMERAS = 40, 56, 162
ROWS, COLUMNS = HEIGHT // 8, WIDTH // 8
KINDS, FACTORS = ["k", "s", "s", "k", "k", "k"], [1, 2, 1, 4, 2, 1]
DIT = replace(
    TINY, dim=48, ffn_dim=40, num_heads=3, num_layers=3, time_dim=24, text_dim=20, image_dim=28, squeeze_dim=5
)
VAE = replace(TINY_VAE, dim=4, num_res_blocks=1, multipliers=(1, 2, 2, 3))
TEXT = TextConfig(vocabulary=67, dim=24, attention_dim=16, ffn_dim=40, num_heads=2, num_layers=3)
IMAGE = ImageConfig(image_size_px=42, patch_px=14, dim=24, mlp_ratio=3, num_heads=2, num_layers=4)


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for name in ("trajectory_gs.safetensors",):
            (folder / name).write_bytes((GOLDEN / name).read_bytes())
        write_dit(folder)
        vae = write_vae(folder)
        write_sampler(folder)
        write_encoders(folder)
        write_memory(folder)
        write_conditioning(folder, vae)


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"golden_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def save(tensors, path, **metadata):
    save_file(
        {k: v.contiguous().clone() for k, v in tensors.items()}, path, {k: json.dumps(v) for k, v in metadata.items()}
    )


def golden_dit(state, io):
    return load("conftest").GoldenDiT(config=DIT, state_dict=state, io=io, kinds=KINDS, factors=FACTORS)


def write_dit(folder: Path) -> None:
    model = build_dit(DIT)
    for parameter in model.parameters():
        parameter.normal_(std=0.15)
    state = {k: v.bfloat16().float() for k, v in model.state_dict().items()}
    args = {
        "patch_size": [1, 2, 2],
        "in_dim": DIT.content_channels,
        "out_dim": DIT.latent_channels,
        **{key: getattr(DIT, key) for key in ("dim", "ffn_dim", "text_dim", "num_heads", "num_layers", "eps")},
        "freq_dim": DIT.time_dim,
        "buffer_in_dim": DIT.correspondence_channels,
        "buffer_sincos_multires": DIT.correspondence_frequencies,
        "buffer_mlp_squeeze_dim": DIT.squeeze_dim,
    }
    save(state, folder / "dit_tiny.safetensors", args=args, clean_kernel_sizes=FACTORS, clean_kernel_types=KINDS)
    save_clean(state, folder)
    rnd = load("conftest").rnd
    io = {
        "A.in.x": rnd(1, (1, DIT.latent_channels, 16, ROWS + 1, COLUMNS + 1)),
        "A.in.ctx": rnd(2, (1, 96, DIT.text_dim)),
        "A.in.clip": rnd(3, (1, 7, DIT.image_dim)),
        "A.in.timestep": torch.tensor([[731]]),
        "A.gen_grid": torch.tensor([3, (ROWS + 1) // 2, (COLUMNS + 1) // 2]),
        "B.gen_grid": torch.tensor([20, 4, 5]),
        "B.out": torch.zeros(1, DIT.latent_channels, 20, 8, 10),
    }
    golden = golden_dit(state, io)
    for case in "AB":
        for dtype, prefix in ((torch.float32, f"{case}."), (torch.bfloat16, f"{case}.bf16.")):
            io |= run_case(golden, case, dtype, prefix, rnd)
    save(io, folder / "dit_tiny_io.safetensors")


def run_case(golden, case, dtype, prefix, rnd) -> dict[str, torch.Tensor]:
    model = golden.model(dtype)
    inputs, latents, timestep, layout = golden.case_a() if case == "A" else golden.case_b()
    seen = {}
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, i=index: seen.update({f"{prefix}block{i}": out.clone()}))
    model.blocks[0].register_forward_pre_hook(lambda _, a: seen.update({f"{prefix}x_tokens": a[0].clone()}))
    context = model.prepare_context(inputs, layout=layout)
    seen[f"{prefix}out"] = model(latents, timestep, context)
    found = dict(seen)  # a copy: the hooks go on with what follows
    if dtype == torch.bfloat16:
        return found
    rows, columns = golden.io[f"{case}.gen_grid"][1:].tolist()
    history, generated = layout.num_tokens(rows, columns)
    found[f"{case}.gen_range"] = torch.tensor([history, history + generated])
    found[f"{case}.freqs"] = packed_angles(layout, rows, columns, DIT.head_dim)[:, None, None]
    if case == "A":
        from lyra_core.video.dit.block import time_sinusoid

        e, e0 = model.embed_time(timestep)
        other = context.with_text(model.prepare_text(rnd(900, inputs.text.shape)))
        found |= {
            "A.out_t0": model(latents, torch.tensor([0]), context),
            "A.out_t625.0": model(latents, torch.tensor([625.0]), context),
            "A.out_ctx_seed900": model(latents, timestep, other),
            "A.time_sinusoid": time_sinusoid(timestep, DIT.time_dim),
            "A.time_emb": e,
            "A.time_proj": e0.flatten(1),
            "A.camera_tokens": camera_tokens(inputs.rays, layout, DIT.patch),
        }
    return found


def save_clean(state, folder: Path) -> None:
    model = build_dit(DIT)
    model.load_state_dict(state)
    expand_patch_embedding(model)
    clean = {f"clean{i}.weight": layer.weight for i, layer in enumerate(model.clean_patch_embeddings)}
    save({"base.weight": model.patch_embedding.weight, **clean}, folder / "dit_tiny_cleaninit.safetensors")


def write_vae(folder: Path):
    vae = build_vae(VAE).eval()
    for tensor in vae.state_dict().values():
        tensor.copy_(tensor.bfloat16())
    video = torch.rand(1, 3, 13, HEIGHT, WIDTH) * 2 - 1
    features = []
    hook = vae.encoder.register_forward_hook(lambda _, __, out: features.append(out))
    latent = vae.encode(video)
    hook.remove()
    io = {
        "io.video": video,
        "io.latent": latent,
        "io.enc_head_feats": torch.cat(features, dim=2),
        "io.latent_f1": vae.encode(video[:, :, :1]),
        "io.recon": vae.decode(latent),
    }
    cfg = {"dim": VAE.dim, "z_dim": VAE.latent_channels, "dim_mult": VAE.multipliers}
    cfg |= {"num_res_blocks": VAE.num_res_blocks, "temperal_downsample": VAE.temporal_downsample}
    weights = {f"sd.{k}": v for k, v in vae.state_dict().items()}
    save({**weights, **io}, folder / "vae_tiny.safetensors", cfg=cfg, mean=VAE.latent_mean, std=VAE.latent_std)
    return vae


def write_sampler(folder: Path) -> None:
    kept = {k: v for k, v in load_file(GOLDEN / "sampler.safetensors").items() if not k.startswith("inference")}
    conftest = load("conftest")
    state = load_file(folder / "dit_tiny.safetensors")
    golden = golden_dit(state, load_file(folder / "dit_tiny_io.safetensors"))
    noise = reference_noise((1, DIT.latent_channels, 20, ROWS + 1, COLUMNS + 1), 1)
    kept["inference.init_noise_seed1"] = noise
    chunk = load("test_sampler").chunk.__wrapped__
    inputs, negative, layout = chunk(kept, golden, conftest.rnd)
    model = golden.model()
    context = model.prepare_context(inputs, layout=layout)
    velocity = guided_velocity(model, context, model.prepare_text(negative), 5.0)
    kept["inference.steps6"] = sample_unipc(velocity, noise, unipc_schedule(6))
    generator = torch.Generator().manual_seed(77)
    memory = (noise.shape[1], layout.num_slots, *noise.shape[3:])

    def draw(_):
        slots = torch.empty(memory).transpose(0, 1).normal_(generator=generator)
        return slots[layout.num_history :].transpose(0, 1)[None]

    kept["inference_dmd.manual_seed77"] = sample_distilled(
        lambda x, t: model(x, t, context), noise, distilled_schedule(), draw
    )
    save(kept, folder / "sampler.safetensors")


def write_encoders(folder: Path) -> None:
    text, image = build_text_encoder(TEXT), build_image_encoder(IMAGE)
    for model in (text, image):
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.bfloat16())
    ids = torch.randint(1, TEXT.vocabulary, (2, 90))
    mask = torch.ones(2, 90, dtype=torch.int64)
    mask[0, 21:] = 0
    out = text(ids, mask.bool())
    picture = torch.rand(1, 3, 30, 44) * 2 - 1
    vectors = {
        "t5.ids": ids,
        "t5.mask": mask,
        "t5.out": out,
        "t5.out_zero_padded": out * mask[..., None],
        "clip.image": picture,
        "clip.preprocessed": preprocess_images(picture, IMAGE.image_size_px),
        "clip.out_31": encode_images(image, picture),
        **{f"t5.sd.{k}": v for k, v in text.state_dict().items()},
        **{f"clip.sd.{k}": v for k, v in image.state_dict().items()},
        # the released file holds the last block, which is not built
        f"clip.sd.transformer.{IMAGE.num_layers - 1}.norm1.weight": torch.ones(IMAGE.dim),
    }
    t5 = {"vocab_size": TEXT.vocabulary, "dim": TEXT.dim, "dim_attn": TEXT.attention_dim, "dim_ffn": TEXT.ffn_dim}
    t5 |= {"num_heads": TEXT.num_heads, "encoder_layers": TEXT.num_layers, "num_buckets": TEXT.num_buckets}
    save(vectors, folder / "encoders_tiny.safetensors", t5=t5)


def other_cameras(step: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Slower, turning the other way, with another lens."""
    w2c = torch.eye(4).repeat(NUM_CAMERAS, 1, 1)
    for i in range(NUM_CAMERAS):
        angle = -0.004 * i * step
        turn = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
        rotation, center = torch.tensor(turn), torch.tensor([-0.01 * i, 0.003 * i, 0.008 * i]) * step
        w2c[i, :3, :3], w2c[i, :3, 3] = rotation.T, -rotation.T @ center
    K = torch.tensor([[46.0, 0, WIDTH / 2 + 1], [0, 44.0, HEIGHT / 2 - 1], [0, 0, 1]])
    return w2c, K


def write_memory(folder: Path) -> None:
    depth_map = load("conftest")._depth_map
    w2c, K = other_cameras()
    depth = torch.stack([depth_map(i, HEIGHT, WIDTH) for i in range(NUM_CAMERAS)])
    points = unproject_integer(depth[:1], w2c[:1], K[None])
    frames = [*range(0, 81, 8)]

    def memory(ids, cameras=w2c):
        found = SpatialMemory(HEIGHT, WIDTH)
        found.add(ids, depth[ids], cameras[ids], K.expand(len(ids), 3, 3))
        return found

    filled, there_and_back = memory(frames), torch.cat([w2c[:81], w2c[:81].flip(0)])
    loop = memory([*range(0, 153, 8)], there_and_back)
    shown = torch.rand(2, 2, 3, HEIGHT, WIDTH) * 2 - 1
    seen, sources, targets = depth[[0, 8, 16, 24]].view(2, 2, 1, HEIGHT, WIDTH), w2c[[0, 8, 16, 24]], w2c[[6, 30]]
    rel = relative_cameras(w2c[[0, 40, 80]], w2c[20])[None]
    vectors = {
        "w2c": w2c,
        "K": K,
        "unproject.depth": depth[None, :1],
        "unproject.points": points,
        "project.out": project_integer(points, w2c[40:41], K[None]),
        "cache.frame_ids": torch.tensor(frames),
        "cache.world_points_16": filled.points[2][None],
        "coords.n5": canonical_coordinates(5, HEIGHT, WIDTH),
        "rays.c2w_rel": rel,
        "rays.out": camera_rays(rel, K.expand(1, 3, 3, 3), HEIGHT, WIDTH),
        "retrieve.loop.w2c": there_and_back,
        "retrieve.loop.t161": torch.tensor(loop.retrieve(there_and_back[[161]], K[None])),
        "retrieve.greedy.multiview": torch.tensor(filled.retrieve(w2c[[100, 120, 140, 160]], K.expand(4, 3, 3))),
        "retrieve.first_chunk": torch.tensor(memory([0]).retrieve(w2c[[80]], K[None])),
        "warp.rgb": shown,
        "warp.depth": seen,
        "warp.w2c_src": sources.view(2, 2, 4, 4),
        "warp.w2c_dst": targets,
    }
    for limit in (0.04, 0.2):
        vectors[f"reliable.r{limit}"] = is_reliable(depth[None, :1][:, 0], limit).float()[:, None]
    for target in (104, 144):
        vectors[f"retrieve.greedy.t{target}"] = torch.tensor(filled.retrieve(w2c[[target]], K[None]))
    for name, items, views in (("v1", 2, 1), ("v2", 2, 2), ("alone", 1, 1)):
        source = WarpSource(
            values=shown[:items, :views],
            depth_m=seen[:items, :views, 0],
            world_to_cam=vectors["warp.w2c_src"][:items, :views],
            intrinsics=K.expand(items, views, 3, 3),
        )
        warp = forward_warp(source, targets[:items], K.expand(items, 3, 3))
        vectors |= {f"warp.{name}.image": warp.values, f"warp.{name}.depth": warp.depth_m}
        if name != "alone":
            vectors[f"warp.{name}.mask"] = warp.mask.float()[:, None]
    save(vectors, folder / "memory.safetensors", H=HEIGHT, W=WIDTH)


def write_conditioning(folder: Path, vae) -> None:
    module, conftest = load("test_conditioning"), load("conftest")
    w2c, K = other_cameras()
    video = torch.rand(1, 3, 81, HEIGHT, WIDTH).mul(2).sub(1).bfloat16()

    def depths(frames, height, width):
        return torch.stack([conftest._depth_map(int(i), height, width) for i in frames])

    golden, layout = {"video81": video}, module.LAYOUT
    slots, spatial = layout.num_history, list(layout.spatial_slots)
    for k in (0, 1):
        conditioner, request = module.chunk(golden, (w2c, K.expand(NUM_CAMERAS, 3, 3)), depths, vae, k)
        inputs = conditioner.build(request)
        maps, name = inputs.correspondence[0], f"c{k}."
        golden |= {
            name + "latents": torch.nn.functional.pad(inputs.history, (0, 0, 0, 0, 0, layout.num_generated)),
            name + "cond_lat16": inputs.condition[:, 4:],
            name + "mask_sum": inputs.condition[:, :4].sum(),
            name + "rays_frame0": inputs.rays[:, :, 0],
            name + "rays_gen_last": inputs.rays[:, :, -1],
            name + "rays_spatial": inputs.rays[:, :, spatial].bfloat16(),
            name + "buffer_shape": torch.tensor([1, *maps.shape]),
            name + "buffer_hist_s": maps[None, :, spatial, 1:2, 1:2],
            name + "buffer_gen_first3slots": maps[None, :768, [slots, slots + 7, slots + 14]].bfloat16(),
            name + "buffer_gen_full_t19": maps[None, :, slots + 19],
            name + "buffer_k_absmax": maps[:, list(layout.temporal_slots)].abs().max(),
        }
    drawn = np.random.RandomState(31).uniform(-1, 1, [1, 4, 80, HEIGHT, WIDTH])
    cells = latent_cells(torch.from_numpy(drawn[0, :, 3::4]).float(), 8)
    golden |= {f"coord_to_latent.t{slot}": cells[None, :, slot] for slot in (0, 19)}
    golden["temporal_indices.65"] = torch.tensor(layout.temporal_indices(65))
    save(golden, folder / "conditioning.safetensors")


if __name__ == "__main__":
    assert isinstance(DIT, DiTConfig)
    torch.set_num_threads(1)
    write(Path(sys.argv[1]))
