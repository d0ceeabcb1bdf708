"""Pipelines in the layout of Stable Diffusion 1.5: the pocket one, one of a folder, one of the hub, or a fresh one."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ulm import runs, zoo
from ulm.errors import InputError

# Sizes of the pipelines that `build` makes, all of Stable Diffusion 1.5's topology. `heads` is a number of heads at
# every width, or one for each; `length` the number of tokens a caption is padded to; `image_size` is latents times
# 2^(VAE levels - 1).
CONFIGS: dict[str, dict[str, Any]] = {
    "sd15": {
        "latent_size": 64,
        "unet": {"widths": (320, 640, 1280, 1280), "heads": 8, "groups": 32},
        "vae": {"widths": (128, 256, 512, 512), "layers": 2, "groups": 32, "scaling_factor": 0.18215},
        "text": {"width": 768, "layers": 12, "heads": 12, "length": 77, "vocab_size": 49408},
    },
    # Chosen by counting operations and by timing; see the module `pocket`.
    "pocket": {
        "latent_size": 16,
        "unet": {"widths": (32, 64, 128, 192), "heads": (1, 2, 4, 4), "groups": 16},
        "vae": {"widths": (16, 32, 48), "layers": 1, "groups": 1, "scaling_factor": 0.18215},
        "text": {"width": 128, "layers": 3, "heads": 4, "length": 60},
    },
    "tiny": {
        "latent_size": 16,
        "unet": {"widths": (8, 16, 16, 16), "heads": 2, "groups": 4},
        "vae": {"widths": (8, 8), "layers": 1, "groups": 4, "scaling_factor": 0.18215},
        "text": {"width": 16, "layers": 1, "heads": 2, "length": 12},
    },
}

# Words that every vocabulary can spell: any other one is written letter by letter.
_WORDS = ("a", "photo", "drawing", "of", "with", "and", "the", "face", "bird", "cat", "person", "left", "right")
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_CLASSES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".msgpack")


@dataclass
class Pipeline:
    """The networks of a latent diffusion model, frozen, with what every method asks of them.

    Attributes:
        unet: Noise predictor, ``UNet2DConditionModel``.
        vae: KL autoencoder, ``AutoencoderKL``.
        text_encoder: ``CLIPTextModel``.
        tokenizer: ``CLIPTokenizer``.
        scheduler: ``DDIMScheduler`` with the training's noise levels; its ``alphas_cumprod`` are in fp32.
        name: What it was loaded from.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    name: str

    def __post_init__(self) -> None:
        for network in self.networks.values():
            network.requires_grad_(False).eval()

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The three networks by name."""
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    @property
    def latent_size(self) -> int:
        """Edge of the latents that the U-Net was made for."""
        return int(self.unet.config.sample_size)

    @property
    def image_size(self) -> int:
        """Edge of the images, in pixels: ``latent_size`` times the reduction of the autoencoder."""
        return self.latent_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def token_dim(self) -> int:
        """Length of one token of the conditioning."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the U-Net's weights."""
        return next(self.unet.parameters()).dtype

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Move the networks (and change their type, where one is given); returns the pipeline itself."""
        for network in self.networks.values():
            nn.Module.to(network, device=device, dtype=dtype)
        return self

    def untrained(self, seed: int = 0) -> Self:
        """The same pipeline with a U-Net of random weights: a baseline that shows what the training of it adds."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = type(self.unet).from_config(self.unet.config)
        return replace(self, unet=nn.Module.to(unet, self.device, self.dtype), name=f"untrained {self.name}")

    @torch.no_grad()
    def latents(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images.

        Args:
            images: ``(B, 3, H, W)`` float RGB in [0, 1], resized to ``image_size`` inside.
            generator: Draws a sample of the posterior; without one its mean is taken, as StableKeypoints does.

        Returns:
            ``(B, 4, h, w)`` float32 latents, multiplied by the autoencoder's scaling factor.

        Raises:
            InputError: If ``images`` are not of that shape, or smaller than the latents.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"found images of shape {tuple(images.shape)}, expected (B, 3, H, W)")
        if min(images.shape[-2:]) < self.latent_size:
            height, width = images.shape[-2:]
            raise InputError(
                f"found an image of {width} x {height} pixels, expected at least the {self.latent_size} x "
                f"{self.latent_size} of the latents of {self.name}; hand in larger images"
            )
        images = _resize(images.to(self.device, torch.float32), self.image_size)
        weights = next(self.vae.parameters())
        posterior = self.vae.encode((2 * images - 1).to(weights.dtype)).latent_dist
        latents = posterior.mean if generator is None else posterior.sample(generator)
        return latents.float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """``(B, 4, h, w)`` scaled latents to ``(B, 3, H, W)`` float32 images in [0, 1]."""
        weights = next(self.vae.parameters())
        latents = latents.to(weights.device, weights.dtype) / self.vae.config.scaling_factor
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """Texts to ``(B, L, token_dim)`` float32: the text encoder's last hidden state, padded to its length."""
        tokens = self.tokenizer(
            [texts] if isinstance(texts, str) else list(texts),
            padding="max_length",
            max_length=self.text_encoder.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state.float()

    def noisy(self, latents: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """Latents at timestep ``t`` of the diffusion, in float32.

        Args:
            latents: ``(B, 4, h, w)`` clean latents.
            t: A timestep from 0 to 999, or ``(B,)`` of them; a negative one stands for no noise.
            noise: Standard normal, of the shape of ``latents``.

        Returns:
            ``sqrt(abar_t) z + sqrt(1 - abar_t) e`` (DDPM, Eq. 4).

        Raises:
            InputError: If ``t`` is past the last timestep.
        """
        alpha = self.alpha(t).to(latents.device).view(-1, 1, 1, 1)
        return alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise.float()

    def alpha(self, t: int | Tensor) -> Tensor:
        """``abar_t`` of timesteps, float32 on the CPU; 1 at a negative one. Raises InputError past the last one."""
        steps = torch.as_tensor(t).cpu().long()
        alphas = torch.cat([self.scheduler.alphas_cumprod.float().cpu(), torch.ones(1)])
        if steps.max() >= len(alphas) - 1:
            raise InputError(f"found timestep {int(steps.max())}, expected at most {len(alphas) - 2}")
        return alphas[steps.clamp(min=-1)]

    def save(self, folder: Path | str, dtype: torch.dtype = torch.float16) -> None:
        """Write the pipeline in diffusers' layout, as safetensors, whole or not at all.

        ``diffusers.StableDiffusionPipeline.from_pretrained(folder)`` reads it. A pipeline that is there already is
        replaced; other files beside it (a card) stay. A kill at the instant of the exchange leaves the old and the new
        one next to the folder under hidden names.

        Raises:
            InputError: If the folder holds something else than a pipeline.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / "model_index.json").is_file() and any(folder.iterdir()):
            raise InputError(f"{folder}: found files that are no pipeline; choose a new folder, or empty this one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            with quiet():
                self._diffusers(dtype).save_pretrained(made, safe_serialization=True)
            _finish(made, self.tokenizer)
            _replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _diffusers(self, dtype: torch.dtype) -> diffusers.StableDiffusionPipeline:
        networks = {n: nn.Module.to(copy.deepcopy(net), "cpu", dtype) for n, net in self.networks.items()}
        return diffusers.StableDiffusionPipeline(
            **networks,
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def load(
    backbone: str | Path = "pocket", device: str = "auto", dtype: str | torch.dtype = "auto", variant: str | None = None
) -> Pipeline:
    """Load a pipeline; only safetensors are ever read.

    Args:
        backbone: ``pocket``, the model of the zoo; a folder in the layout of Stable Diffusion 1.5; or an id of the
            hub such as ``stable-diffusion-v1-5/stable-diffusion-v1-5``, fetched once and then found in the cache.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` is bfloat16 where the processor is fast at it, else float32; or a name or torch's type.
        variant: Name of other weights of the same model, such as ``fp16``.

    Returns:
        The pipeline, frozen, in eval mode.

    Raises:
        InputError: No such model, no network and nothing in the cache, another class than Stable Diffusion, a folder
            with parts missing or damaged, or weights that are there as pickles alone.
    """
    target, precision = runs.pick_device(device), pick_dtype(dtype, runs.pick_device(device))
    folder = _folder(str(backbone), variant)
    _check(folder, str(backbone), variant)
    read = functools.partial(_network, folder, variant)
    try:
        with quiet():
            pipeline = Pipeline(
                read(UNet2DConditionModel, "unet", torch_dtype=precision),
                read(AutoencoderKL, "vae", torch_dtype=precision),
                read(CLIPTextModel, "text_encoder", dtype=precision),
                CLIPTokenizer.from_pretrained(folder / "tokenizer"),
                DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False, set_alpha_to_one=False),
                str(backbone),
            )
    except Exception as error:
        raise InputError(
            f"{backbone}: found a part that cannot be read ({error}); fetch or make the model again"
        ) from error
    return pipeline.to(target)


def build(
    config: str | dict[str, Any] = "pocket",
    seed: int = 0,
    vocabulary: Sequence[str] = _WORDS,
    device: str = "cpu",
) -> Pipeline:
    """A pipeline with random float32 weights in the exact topology of Stable Diffusion 1.5.

    Args:
        config: ``sd15`` (the published configuration), ``pocket`` (the book's), ``tiny`` (for tests), or a dict like
            those in ``CONFIGS``.
        seed: Decides the weights.
        vocabulary: Words that are one token each. Other words are spelt in smaller pieces.
        device: Where to put it; ``meta`` makes shapes without weights.

    Returns:
        The pipeline, frozen, in eval mode; whoever trains a network of it calls ``requires_grad_`` and ``train``.

    Raises:
        InputError: For an unknown name, or a vocabulary that is larger than the configuration's ``vocab_size``.
    """
    if isinstance(config, str) and config not in CONFIGS:
        raise InputError(f"found config {config!r}, expected one of {', '.join(CONFIGS)}, or a dict like theirs")
    sizes = CONFIGS[config] if isinstance(config, str) else config
    words = tokenizer(vocabulary, sizes["text"]["length"])
    place = torch.device("meta") if device == "meta" else runs.pick_device(device)
    with torch.random.fork_rng(devices=[]), torch.device("meta" if device == "meta" else "cpu"):
        torch.manual_seed(seed)
        networks = _unet(sizes), _vae(sizes), _text_encoder(sizes, words)
    pipeline = Pipeline(*networks, words, _scheduler(), config if isinstance(config, str) else "custom")
    return pipeline.to(place)


def tokenizer(vocabulary: Sequence[str], length: int = 77) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE, lower case) in which each word of a small vocabulary is one token.

    Merges are learnt word by word: what is still in pieces under the merges so far is joined from the left by new ones.
    New merges rank last, so they never change a word that is whole already. Every other text is spelt in pieces.
    """
    letters = [*_byte_letters(), *(letter + "</w>" for letter in _byte_letters())]
    merges: dict[tuple[str, str], int] = {}
    for word in vocabulary:
        pieces = _merge([*word.lower()[:-1], word.lower()[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
            pieces = _merge(pieces, merges)
    tokens = [*letters, *dict.fromkeys(left + right for left, right in merges), _BOS, _EOS]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges), model_max_length=length
    )


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the device is fast at it, else float32. Raises InputError for an unknown name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return torch.bfloat16 if fast else torch.float32
    if dtype not in names:
        raise InputError(f"found dtype {dtype!r}, expected auto, {', '.join(names)}")
    return names[dtype]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from diffusers and transformers inside the ``with``."""
    modules = (diffusers.utils.logging, transformers.utils.logging)
    before = [(m, m.get_verbosity(), m.is_progress_bar_enabled()) for m in modules]
    for module in modules:
        module.set_verbosity_error()
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, verbosity, bars in before:
            module.set_verbosity(verbosity)
            if bars:
                module.enable_progress_bar()


# --- networks of a fresh pipeline -------------------------------------------------------------------------------------


def _unet(sizes: dict[str, Any]) -> UNet2DConditionModel:
    unet = sizes["unet"]
    return UNet2DConditionModel(
        sample_size=sizes["latent_size"],
        block_out_channels=unet["widths"],
        layers_per_block=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        cross_attention_dim=sizes["text"]["width"],
        # Stable Diffusion 1.5's configuration files say 'head_dim' and mean the number of heads.
        attention_head_dim=unet["heads"],
        norm_num_groups=unet["groups"],
    )


def _vae(sizes: dict[str, Any]) -> AutoencoderKL:
    vae = sizes["vae"]
    levels = len(vae["widths"])
    return AutoencoderKL(
        sample_size=sizes["latent_size"] * 2 ** (levels - 1),
        block_out_channels=vae["widths"],
        layers_per_block=vae["layers"],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=vae["groups"],
        scaling_factor=vae["scaling_factor"],
    )


def _text_encoder(sizes: dict[str, Any], words: CLIPTokenizer) -> CLIPTextModel:
    text = sizes["text"]
    vocab_size = text.get("vocab_size", len(words))
    if len(words) > vocab_size:
        raise InputError(f"found a vocabulary of {len(words)} tokens, expected at most {vocab_size}; use fewer words")
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            projection_dim=text["width"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["length"],
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes in byte-level BPE."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _merge(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: join the neighbours of the lowest rank until none are left to join."""
    while True:
        ranks = [(merges[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in merges]
        if not ranks:
            return pieces
        i = min(ranks)[1]
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


# --- folders and the hub ----------------------------------------------------------------------------------------------


def _folder(backbone: str, variant: str | None) -> Path:
    if backbone == "pocket":
        folder = zoo.folder() / "pocket"
        if not (folder / "model_index.json").is_file():
            raise InputError(
                "found no pocket pipeline in the zoo; make one with 'ulm zoo train pocket --out FOLDER' and give that "
                "folder as backbone"
            )
        return folder
    if Path(backbone).is_dir():
        return Path(backbone)
    parts = backbone.split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", ".."):
        raise InputError(
            f"found no folder {backbone!r}, expected 'pocket', a folder in the layout of Stable Diffusion 1.5, or an "
            "id of the hub such as 'stable-diffusion-v1-5/stable-diffusion-v1-5'; check the path"
        )
    return _fetch(backbone, variant)


def _fetch(backbone: str, variant: str | None) -> Path:
    """The folder of a model of the hub in the cache, fetched if need be: first its index, then only what is used."""
    from huggingface_hub import hf_hub_download, snapshot_download

    suffix = f".{variant}" if variant else ""
    weights = [f"{part}/diffusion_pytorch_model{suffix}.safetensors" for part in ("unet", "vae")]
    wanted = ["model_index.json", "*/config.json", "scheduler/*.json", "tokenizer/*", *weights]
    try:
        _check_class(Path(hf_hub_download(backbone, "model_index.json")), backbone)
        return Path(snapshot_download(backbone, allow_patterns=[*wanted, f"text_encoder/model{suffix}.safetensors"]))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{backbone}: found it neither in the cache nor on the hub ({type(error).__name__}); connect to the "
            "network, check the id, or hand in a folder that holds the model"
        ) from error


def _network(folder: Path, variant: str | None, cls: Any, part: str, **keys: Any) -> nn.Module:
    network, report = cls.from_pretrained(
        folder / part, use_safetensors=True, variant=variant, output_loading_info=True, **keys
    )
    # What the file lacks would be left at random.
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{part} lacks {len(missing)} of its weights, such as {missing[0]}")
    return network


def _check(folder: Path, name: str, variant: str | None) -> None:
    _check_class(folder / "model_index.json", name)
    missing = [part for part in _PARTS if not any((folder / part).glob("*.json"))]
    if missing:
        raise InputError(f"{name}: found no {', '.join(missing)}, expected all of {', '.join(_PARTS)}; fetch it again")
    for part in ("unet", "vae", "text_encoder"):
        files = [file.name for file in (folder / part).iterdir()]
        end = f".{variant}.safetensors" if variant else ".safetensors"
        if any(file.endswith(end) for file in files):
            continue
        if any(file.endswith(_PICKLES) for file in files):
            raise InputError(
                f"{name}: found the weights of {part} as pickles alone, which can run any program when loaded; "
                "expected safetensors; fetch a copy that has them"
            )
        raise InputError(f"{name}: found no weights of {part} (*{end}); fetch it again")


def _check_class(index: Path, name: str) -> None:
    if not index.is_file():
        raise InputError(f"{name}: found no model_index.json, expected a folder in diffusers' layout; check the path")
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{name}: found a broken model_index.json; fetch or make the model again") from None
    if found not in _CLASSES:
        raise InputError(
            f"{name}: found a {found}, expected a StableDiffusionPipeline in the layout of Stable Diffusion 1.5; "
            "SDXL and later models have other layers"
        )


def _finish(folder: Path, words: CLIPTokenizer) -> None:
    """What plain diffusers and other versions of transformers ask for besides."""
    config = folder / "text_encoder" / "config.json"
    # transformers would load the type that is named here, diffusers loads float32: the two must agree.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    # vocab.json and merges.txt, the tokenizer's files in Stable Diffusion 1.5.
    words.backend_tokenizer.model.save(str(folder / "tokenizer"))


def _replace(made: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, and keep those files of the old one that the new one lacks."""
    made.chmod(0o755)
    old = made.with_name(made.name + ".old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(made, folder)
    if old.exists():
        for file in old.iterdir():
            if not (folder / file.name).exists():
                os.replace(file, folder / file.name)
        shutil.rmtree(old)
