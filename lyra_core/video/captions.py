"""Finds the words each chunk is generated under: from the manifest, from nothing, or from a vision-language model.

The released network was trained with a caption for every chunk of 80 frames, 80 to 100 words long.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from lyra_core.errors import LyraWarning, PromptError, WeightsError
from lyra_core.extras import require

MAX_NEW_TOKENS = 160
INSTRUCTION = (
    "The first picture is where a walk through a scene began, the second is what the camera sees now{previews}. "
    "Describe the scene in one paragraph of 80 to 100 words for a model that will film the walk on: what stands "
    "where, materials, light, weather and style. Describe only what is there or must lie just beyond the frame; "
    "do not mention pictures, cameras or missing parts."
)
PREVIEWS = ", and the others preview where the camera goes, with black where nothing was seen yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRequest:
    """What is known when a chunk is about to be generated.

    Attributes:
        chunk: its number, from 0.
        seed_image: sRGB. [h w 3]
        last_image: the last frame before the chunk. [h w 3]
        previews: warps of known frames to cameras of the chunk, black where nothing was seen. each [h w 3]
    """

    chunk: int
    seed_image: UInt8[Tensor, "h w 3"]
    last_image: UInt8[Tensor, "h w 3"]
    previews: tuple[UInt8[Tensor, "h w 3"], ...] = ()


@runtime_checkable
class Captioner(Protocol):
    """Finds a caption for each chunk, in order."""

    def caption(self, request: CaptionRequest) -> str:
        """The caption of one chunk."""
        ...


class ManifestCaptions:
    """Captions known beforehand: one for all chunks, or one a chunk."""

    def __init__(self, captions: Sequence[str]) -> None:
        if not captions:
            raise PromptError("wanted one caption, or one a chunk, found an empty list; use [''] for no words")
        self.captions = tuple(captions)

    def require(self, num_chunks: int) -> None:
        """Check that every chunk has one.

        Raises:
            PromptError: another number of captions.
        """
        if len(self.captions) not in (1, num_chunks):
            raise PromptError(f"wanted one caption, or one for each of {num_chunks} chunks, found {len(self.captions)}")

    def caption(self, request: CaptionRequest) -> str:
        """The chunk's caption, or the only one."""
        return self.captions[0] if len(self.captions) == 1 else self.captions[request.chunk]


class NoCaptions:
    """No words at all. The released network was trained with captions and says so."""

    def __init__(self, *, network_reads_text: bool) -> None:
        self._warns = network_reads_text

    def caption(self, request: CaptionRequest) -> str:
        """The empty caption; warns once where the network reads captions."""
        if self._warns and request.chunk == 0:
            warnings.warn(
                "this network was trained with captions and gets none: expect blurrier unseen regions; "
                "add prompts to the manifest",
                LyraWarning,
                stacklevel=2,
            )
        return ""


class VisionLanguageCaptioner:
    """Captions from a vision-language model of the transformers library, read from a local folder when first needed."""

    def __init__(self, folder: str | Path, *, hint: str = "", device: str = "cpu") -> None:
        """`hint` is what the user says about the scene; the model is asked to keep to it.

        Raises:
            WeightsError: there is no such folder.
        """
        self.folder = Path(folder)
        if not str(folder) or not self.folder.is_dir():
            raise WeightsError(
                f"captioner: wanted 'manifest' or the folder of a vision-language model, found {str(folder)!r}, which "
                "is no folder"
            )
        self.hint = hint
        self.device = device
        self._model: Any = None
        self._processor: Any = None

    def caption(self, request: CaptionRequest) -> str:
        """One paragraph about the scene, by greedy decoding.

        Raises:
            WeightsError: the folder holds no such model.
            PromptError: the model said nothing.
        """
        self._load()
        text = self._processor.apply_chat_template(
            build_messages(len(request.previews), self.hint), tokenize=False, add_generation_prompt=True
        )
        images = [_as_picture(image) for image in (request.seed_image, request.last_image, *request.previews)]
        inputs = self._processor(text=[text], images=images, return_tensors="pt").to(self.device)
        tokens = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        caption = " ".join(self._processor.batch_decode(new, skip_special_tokens=True)[0].split())
        if not caption:
            raise PromptError(f"the captioning model in {self.folder} returned no words; write captions by hand")
        return caption

    def _load(self) -> None:
        if self._model is not None:
            return
        require("transformers", f"writing captions with the model in {self.folder}")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            # Nobody is asked on a terminal whether code from the folder may run: it may not.
            self._processor = AutoProcessor.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{self.folder} must hold a vision-language model and its processor in the transformers layout: {error}"
            ) from error
        model.to(self.device)  # type: ignore[arg-type]
        self._model = model.eval()


def build_messages(num_previews: int, hint: str = "") -> list[dict[str, object]]:
    """The conversation put to a vision-language model: seed, last frame and previews, then what is asked."""
    instruction = INSTRUCTION.format(previews=PREVIEWS if num_previews else "")
    if hint:
        instruction += f" The person who took the first picture says: {hint.strip()}"
    content: list[dict[str, str]] = [{"type": "image"} for _ in range(2 + num_previews)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": instruction}]}]


def _as_picture(image: UInt8[Tensor, "h w 3"]) -> object:
    from PIL import Image

    return Image.fromarray(image.cpu().numpy())
