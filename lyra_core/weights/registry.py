"""Every set of weights the project can use: where it is published, under which license, and what
to do with it.

Sources: the model card and README of nvidia/Lyra-2.0, the README of Depth Anything 3 (model
table), the Wan 2.1 README, the repositories nvidia/Cosmos3-*.
No revision is pinned by the publishers; `lyra weights fetch` resolves one commit and the manifest
records it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lyra_core.errors import LicenseError, WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """The terms of a set of weights.

    Attributes:
        name: what `--accept-license` takes.
        title: the full name.
        url: where it can be read.
        restricted: True where it must be accepted by name before use.
        forbids: what it forbids, in one sentence; empty for permissive licenses.
    """

    name: str
    title: str
    url: str
    restricted: bool = False
    forbids: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSet:
    """A set of weights as it is published.

    Attributes:
        name: what `lyra weights` takes.
        title: one line for people.
        kind: whose key rules the files follow (`lyra_core.weights.keys.RULES`).
        repo_id: its Hugging Face repository; empty where it is none.
        files: file names in the repository; a trailing * matches any ending.
        entry: which of them `convert` opens: a file, or a directory.
        revision: branch, tag or commit to fetch.
        format: what the publisher ships.
        license: a key of LICENSES.
        by_hand: what to know when it is fetched or placed by hand.
        components: folders that must be there, of sets in the form of a library.
    """

    name: str
    title: str
    kind: str
    repo_id: str
    files: tuple[str, ...]
    entry: str
    revision: str = "main"
    format: str = "safetensors"
    license: str
    by_hand: str = ""
    components: tuple[str, ...] = ()


LICENSES: dict[str, License] = {
    terms.name: terms
    for terms in (
        License(
            name="nvidia-internal-research",
            title="NVIDIA Internal Scientific Research and Development Model License",
            url="https://www.nvidia.com/en-us/agreements/enterprise-software/"
            "nvidia-internal-scientific-research-and-development-model-license/",
            restricted=True,
            forbids="internal scientific research and development only: no production use, "
            "no sale, no distribution of the weights",
        ),
        License(
            name="cc-by-nc-4.0",
            title="Creative Commons Attribution-NonCommercial 4.0 International",
            url="https://creativecommons.org/licenses/by-nc/4.0/",
            restricted=True,
            forbids="no commercial use; attribution is required",
        ),
        License(
            name="apache-2.0",
            title="Apache License 2.0",
            url="https://www.apache.org/licenses/LICENSE-2.0",
        ),
        License(
            name="openmdw-1.1",
            title="OpenMDW License Agreement 1.1",
            url="https://openmdw.ai/",
        ),
    )
}

_LYRA = "nvidia/Lyra-2.0"
_WAN = "Wan-AI/Wan2.1-I2V-14B-480P"
_RESEARCH = "nvidia-internal-research"
_ONE_FILE = ("config.json", "model.safetensors")


def _lyra(name: str, title: str, kind: str, path: str, file_format: str, by_hand: str = "") -> WeightSet:
    entry = f"checkpoints/{path}"
    return WeightSet(
        name=name,
        title=title,
        kind=kind,
        repo_id=_LYRA,
        files=(f"{entry}/*",) if file_format == "distributed checkpoint" else (entry,),
        entry=entry,
        format=file_format,
        license=_RESEARCH,
        by_hand=by_hand,
    )


def _da3(name: str, repo: str, license_name: str) -> WeightSet:
    return WeightSet(
        name=name,
        title=f"Depth Anything 3, {repo}",
        kind="da3",
        repo_id=f"depth-anything/{repo}",
        files=_ONE_FILE,
        entry="model.safetensors",
        license=license_name,
    )


def _cosmos(name: str, repo: str, size: str) -> WeightSet:
    components = {
        "transformer": ("json", "safetensors"),
        "vae": ("json", "safetensors"),
        "text_tokenizer": ("json", "txt", "jinja"),
        "scheduler": ("json",),
    }
    return WeightSet(
        name=name,
        title=f"NVIDIA {repo}, {size}",
        kind="component folder",
        repo_id=f"nvidia/{repo}",
        files=(
            "model_index.json",
            "modular_model_index.json",
            "LICENSE*",
            "NOTICE*",
            # neither pickles nor code, should a repository hold them
            *(f"{part}/*.{ending}" for part, endings in components.items() for ending in endings),
        ),
        entry=".",
        format="diffusers folder",
        license="openmdw-1.1",
        by_hand="used as published: the folder with transformer, vae, text_tokenizer and scheduler; sound and vision "
        "encoders are not needed. Whoever passes the files on passes on the license and the notices with them",
        components=tuple(components),
    )


WEIGHT_SETS: dict[str, WeightSet] = {
    item.name: item
    for item in (
        _lyra(
            "lyra2-dit",
            "Lyra 2 video transformer, 17.03 B parameters",
            "lyra2-dit",
            "model/model",
            "distributed checkpoint",
            "the directory holds a file named .metadata, which some tools hide or leave out: it must come along",
        ),
        _lyra(
            "lyra2-vae",
            "Wan 2.1 VAE as shipped with Lyra 2",
            "wan-vae",
            "vae/vae.pth",
            "torch.save",
        ),
        _lyra("lyra2-text", "UMT5-XXL text encoder", "umt5", "text_encoder/encoder.pth", "torch.save"),
        _lyra(
            "lyra2-negative-prompt",
            "the embedded negative prompt",
            "negative-prompt",
            "text_encoder/negative_prompt.pt",
            "torch.save",
        ),
        _lyra(
            "lyra2-image",
            "CLIP ViT-H/14 image encoder",
            "clip",
            "image_encoder/model.pth",
            "torch.save",
        ),
        _lyra(
            "lyra2-recon",
            "Depth Anything 3 nested, fine-tuned on videos of Lyra 2 (with Gaussian head)",
            "da3",
            "recon/model.pt",
            "torch.save",
        ),
        _lyra(
            "lora-realism-boost",
            "LoRA, strength 0.4 by default",
            "lora",
            "lora/realism_boost.safetensors",
            "safetensors",
        ),
        _lyra(
            "lora-detail-enhancer",
            "LoRA, strength 0.4 by default",
            "lora",
            "lora/detail_enhancer.safetensors",
            "safetensors",
        ),
        _lyra(
            "lora-dmd",
            "LoRA of the 4-step distillation, strength 1.0",
            "lora",
            "lora/dmd_distillation.safetensors",
            "safetensors",
            "published after the first release: older copies of the repository lack it",
        ),
        WeightSet(
            name="umt5-tokenizer",
            title="tokenizer of the text encoder",
            kind="tokenizer",
            repo_id="google/umt5-xxl",
            files=(
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "spiece.model",
            ),
            entry=".",
            format="tokenizer",
            license="apache-2.0",
            by_hand="used as it is, without conversion",
        ),
        WeightSet(
            name="wan-vae",
            title="Wan 2.1 VAE",
            kind="wan-vae",
            repo_id=_WAN,
            files=("Wan2.1_VAE.pth",),
            entry="Wan2.1_VAE.pth",
            format="torch.save",
            license="apache-2.0",
        ),
        WeightSet(
            name="wan-text",
            title="UMT5-XXL text encoder of Wan 2.1",
            kind="umt5",
            repo_id=_WAN,
            files=("models_t5_umt5-xxl-enc-bf16.pth",),
            entry="models_t5_umt5-xxl-enc-bf16.pth",
            format="torch.save",
            license="apache-2.0",
        ),
        WeightSet(
            name="wan-image",
            title="CLIP ViT-H/14 image encoder of Wan 2.1",
            kind="clip",
            repo_id=_WAN,
            files=("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",),
            entry="models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
            format="torch.save",
            license="apache-2.0",
        ),
        WeightSet(
            name="wan-i2v-14b",
            title="Wan 2.1 image-to-video 14B, 480p: where training of Lyra 2 begins",
            kind="wan-dit",
            repo_id=_WAN,
            files=("diffusion_pytorch_model*", "config.json"),
            entry=".",
            format="safetensors shards",
            license="apache-2.0",
        ),
        _da3("da3-small", "DA3-SMALL", "apache-2.0"),
        _da3("da3-base", "DA3-BASE", "apache-2.0"),
        _da3("da3-large", "DA3-LARGE-1.1", "cc-by-nc-4.0"),
        _da3("da3-giant", "DA3-GIANT-1.1", "cc-by-nc-4.0"),
        _da3("da3metric-large", "DA3METRIC-LARGE", "apache-2.0"),
        _da3("da3mono-large", "DA3MONO-LARGE", "apache-2.0"),
        _da3("da3nested-giant-large", "DA3NESTED-GIANT-LARGE-1.1", "cc-by-nc-4.0"),
        _cosmos("cosmos3-nano", "Cosmos3-Nano", "31.8 GB"),
        _cosmos("cosmos3-super", "Cosmos3-Super", "129.5 GB"),
        _cosmos("cosmos3-super-i2v", "Cosmos3-Super-Image2Video", "129.5 GB"),
        _cosmos("cosmos3-super-i2v-4step", "Cosmos3-Super-Image2Video-4Step", "129.5 GB"),
        WeightSet(
            name="mini",
            title="the small model of this project, part of the package",
            kind="mini",
            repo_id="",
            files=(),
            entry="",
            license="apache-2.0",
            by_hand="nothing to do: it lies in lyra_core/mini/weights",
        ),
    )
}


def weight_set(name: str) -> WeightSet:
    """A set by name.

    Raises:
        WeightsError: no such set; the known ones are listed.
    """
    if name not in WEIGHT_SETS:
        raise WeightsError(f"weights {name!r} are unknown; known are {', '.join(WEIGHT_SETS)}")
    return WEIGHT_SETS[name]


def require_accepted(licenses: Iterable[str], accepted: Collection[str]) -> None:
    """Checks that every restricted license was accepted by name.

    Args:
        licenses: names of the licenses in use.
        accepted: names given with `--accept-license`.

    Raises:
        LicenseError: a restricted license was not accepted, or a name is unknown.
    """
    if unknown := sorted(({*licenses} | {*accepted}) - {*LICENSES}):
        raise LicenseError(f"licenses {', '.join(unknown)} are unknown; known are {', '.join(LICENSES)}")
    open_terms = [LICENSES[name] for name in dict.fromkeys(licenses) if LICENSES[name].restricted]
    missing = [terms for terms in open_terms if terms.name not in accepted]
    if missing:
        restrictions = "; ".join(f"{terms.title} ({terms.forbids}; {terms.url})" for terms in missing)
        flags = " ".join(f"--accept-license {terms.name}" for terms in missing)
        raise LicenseError(f"these weights are restricted: {restrictions}. If you accept the terms, add {flags}")
