"""Perceptual networks Gamma (IMM, section 3.2): VGG trunks that compare images by their activations.

IMM's authors use a VGG-16 on grey images that was trained to colourise (Larsson et al. 2016), and a VGG trained on
ImageNet for the rows marked *sup.*. The book trains its own colourising trunk (chapter 'A loss that learned to
colour') and loads the published weights from files in torchvision's or Caffe's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ulm.errors import InputError

# Convolutions in each of the five stages.
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
# IMM's layers after the raw input, by (stage, convolution), counted from 0.
TAPS = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1))
# The mean grey level that the authors subtract, of the colourisation network's training images.
GREY_MEAN = 114.451 / 255
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
PREPROCESSING = ("grey", "torchvision", "caffe")


class VGG(nn.Module):
    """A VGG trunk up to conv5_2 that returns IMM's five activations.

    Args:
        depth: ``vgg16`` or ``vgg19``.
        width: Channels of the first stage; 64 as published, doubling up to ``8 width``.
        preprocessing: ``grey`` (mean of the three channels less a constant), ``torchvision`` (RGB, standardised) or
            ``caffe`` (BGR in [0, 255] less the mean).
        norm: With batch normalisation after each convolution (while it is trained; :meth:`fold` removes it).
    """

    def __init__(self, depth: str = "vgg16", width: int = 64, preprocessing: str = "grey", norm: bool = False):
        super().__init__()
        if depth not in DEPTHS:
            raise InputError(f"found depth {depth!r}, expected one of {', '.join(DEPTHS)}")
        if preprocessing not in PREPROCESSING:
            raise InputError(f"found preprocessing {preprocessing!r}, expected one of {', '.join(PREPROCESSING)}")
        self.depth, self.width, self.preprocessing, self.norm = depth, width, preprocessing, norm
        inputs = 1 if preprocessing == "grey" else 3
        self.stages = nn.ModuleList()
        for stage, n in enumerate(DEPTHS[depth]):
            outputs = width * min(2**stage, 8)
            # Nothing above conv5_2 is compared.
            n = min(n, TAPS[4][1] + 1) if stage == 4 else n
            self.stages.append(nn.ModuleList([self._block(inputs if i == 0 else outputs, outputs) for i in range(n)]))
            inputs = outputs
        self.channels = [width * min(2**stage, 8) for stage, _ in TAPS]

    def _block(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1)]
        nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")
        nn.init.zeros_(layers[0].bias)
        return nn.Sequential(*layers, *([nn.BatchNorm2d(outputs)] if self.norm else []), nn.ReLU(inplace=True))

    def preprocess(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] to what the first convolution expects."""
        if self.preprocessing == "grey":
            return images.mean(1, keepdim=True) - GREY_MEAN
        if self.preprocessing == "caffe":
            return images.flip(1) * 255 - images.new_tensor(CAFFE_MEAN_BGR).view(1, 3, 1, 1)
        mean, std = images.new_tensor(IMAGENET_MEAN), images.new_tensor(IMAGENET_STD)
        return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Activations after the rectifier of conv1_2, conv2_2, conv3_2, conv4_2, conv5_2."""
        x = self.preprocess(images)
        taps = []
        for stage, blocks in enumerate(self.stages):
            if stage:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            for i, block in enumerate(blocks):
                x = block(x)
                if (stage, i) in TAPS:
                    taps.append(x)
        return taps

    def convolutions(self) -> Iterator[tuple[str, nn.Conv2d]]:
        """Pairs of Caffe's layer name (``conv3_2``) and the layer."""
        for stage, blocks in enumerate(self.stages):
            for i, block in enumerate(blocks):
                yield f"conv{stage + 1}_{i + 1}", block[0]

    @torch.no_grad()
    def fold(self) -> VGG:
        """The same function without batch normalisation, each one folded into its convolution."""
        folded = VGG(self.depth, self.width, self.preprocessing)
        for ours, theirs in zip(folded.stages, self.stages, strict=True):
            for target, source in zip(ours, theirs, strict=True):
                convolution, norm = source[0], source[1]
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                target[0].weight.copy_(convolution.weight * scale[:, None, None, None])
                target[0].bias.copy_((convolution.bias - norm.running_mean) * scale + norm.bias)
        return folded.eval()

    @torch.no_grad()
    def load_torchvision(self, tensors: dict[str, Tensor]) -> VGG:
        """Weights named ``features.N.weight`` and ``features.N.bias``, as torchvision and timm write them.

        Raises:
            InputError: If a tensor is missing or has another shape.
        """
        index = 0
        for blocks in self.stages:
            for block in blocks:
                for kind in ("weight", "bias"):
                    _copy(getattr(block[0], kind), tensors.get(f"features.{index}.{kind}"), f"features.{index}.{kind}")
                index += 2  # the rectifier takes an index too
            index += 1  # and so does the pooling layer
        return self

    @torch.no_grad()
    def load_caffe(self, path: Path) -> VGG:
        """Weights of an HDF5 file of ``/data/conv1_1/0`` (weight), ``/1`` (bias), normalisation folded in.

        The authors' ``vgg16.caffemodel.h5`` has ``/data/batch_conv1_1/{0,1,2}`` too: Caffe's running mean and
        variance, both to be divided by the third blob.

        Raises:
            InputError: If a layer is missing or has another shape.
        """
        import h5py

        with h5py.File(path, "r") as file:
            data = file.get("data", file)
            for name, layer in self.convolutions():
                if name not in data:
                    raise InputError(f"{path}: found no layer {name}, expected Caffe's VGG layers under /data")
                weight, bias = (torch.from_numpy(data[f"{name}/{i}"][()]).float() for i in (0, 1))
                if f"batch_{name}" in data:
                    mean, variance, factor = (
                        torch.from_numpy(data[f"batch_{name}/{i}"][()]).float().flatten() for i in range(3)
                    )
                    deviation = (1e-5 + variance / factor).sqrt()
                    weight = weight / deviation[:, None, None, None]
                    bias = (bias - mean / factor) / deviation
                _copy(layer.weight, weight, f"{name}/0")
                _copy(layer.bias, bias, f"{name}/1")
        return self


def _copy(target: Tensor, source: Tensor | None, name: str) -> None:
    if source is None or source.shape != target.shape:
        found = "nothing" if source is None else tuple(source.shape)
        raise InputError(
            f"perceptual weights: found {found} for {name}, expected {tuple(target.shape)}; is this a VGG?"
        )
    target.copy_(source)


def load(source: str, zoo_folder: Path | None = None) -> VGG:
    """A frozen perceptual network.

    Args:
        source: ``FILE.safetensors`` of a trained ``Colourisation`` or ``Recognition`` or in torchvision's layout,
            ``FILE.h5`` in Caffe's layout,
            a Hugging Face repository with a torchvision-layout VGG (``timm/vgg16.tv_in1k``, ``timm/vgg19.tv_in1k``;
            needs a network once), or the name of a perceptual network of the zoo.
        zoo_folder: Where zoo networks lie.

    Raises:
        InputError: If the file is missing, is a pickle, or does not hold a VGG.
    """
    path = Path(source)
    if path.suffix in {".pth", ".pt", ".bin", ".pkl"}:
        raise InputError(
            f"{path}: found a pickle, which can run code; expected .safetensors or .h5. "
            "The same weights are on the hub as safetensors: use timm/vgg16.tv_in1k or timm/vgg19.tv_in1k"
        )
    if zoo_folder is not None and (zoo_folder / source / "model.safetensors").is_file():
        path = zoo_folder / source / "model.safetensors"
    elif source.count("/") == 1 and not path.exists() and path.suffix not in {".safetensors", ".h5"}:
        path = _download(source)
    if not path.is_file():
        raise InputError(
            f"found no perceptual network at {source}, expected a .safetensors or .h5 file, a hub id or a zoo name"
        )
    vgg = VGG("vgg16", 64, "grey").load_caffe(path) if path.suffix == ".h5" else _from_safetensors(path)
    return vgg.eval().requires_grad_(False)


def _from_safetensors(path: Path) -> VGG:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    if "depth" in header:
        vgg = VGG(header["depth"], int(header["width"]), header["preprocessing"])
        # What lies beside the trunk, such as the head of its training, is not for comparing.
        vgg.load_state_dict(
            {name.removeprefix("trunk."): tensor for name, tensor in tensors.items() if name.startswith("trunk.")}
        )
        return vgg
    # The fourth convolution of stage 3 tells VGG-19 from VGG-16 in torchvision's numbering.
    depth = "vgg19" if tensors.get("features.16.weight", torch.empty(0)).shape == (256, 256, 3, 3) else "vgg16"
    return VGG(depth, 64, "torchvision").load_torchvision(tensors)


def _download(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"could not fetch {repository} from the hub ({type(error).__name__}); connect to the network once, "
            "or give a file with VGG weights (.safetensors or .h5)"
        ) from error


class ContentLoss(nn.Module):
    """IMM's reconstruction loss: squared differences of the input and of five activations, each normalised online.

    ``L = sum_l m_l / w_l`` (the authors' factor 1000 is the method's) with ``m_l`` the masked mean squared difference
    of layer l and ``w_l`` its running mean (decay 0.99). The authors let a little gradient flow through ``w_l``; here
    it is detached, as in their later code. ``w_l`` is a buffer: it is saved in checkpoints and stays put in evaluation.

    Args:
        vgg: A frozen trunk.
        release_weights: Start from the authors' constants, else from the first batch.
        decay: Of the running means.
    """

    # The authors' starting values for input, conv1_2 ... conv5_2, on images in [0, 255] and the published trunk.
    RELEASE_WEIGHTS = (100.0, 1.6, 2.3, 1.8, 2.8, 100.0)

    def __init__(self, vgg: VGG, release_weights: bool = False, decay: float = 0.99):
        super().__init__()
        # In a tuple, so that the frozen trunk is no part of checkpoints.
        self.trunk, self.decay = (vgg,), decay
        start = torch.tensor(self.RELEASE_WEIGHTS) if release_weights else torch.full((len(TAPS) + 1,), float("nan"))
        self.register_buffer("weights", start)

    def terms(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The ``m_l``, ``(6,)``: means over all elements, those that the mask hides included.

        Args:
            prediction: ``(B, 3, H, W)`` in [0, 1].
            target: The same.
            mask: ``(B, 1, H, W)`` in [0, 1].
        """
        with torch.no_grad():
            wanted = self.trunk[0](target)
        pairs = [(255 * prediction, 255 * target), *zip(self.trunk[0](prediction), wanted, strict=True)]
        return torch.stack([_masked_mean(ours, theirs, mask) for ours, theirs in pairs])

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar that hovers near 6: watch :meth:`terms`, not this, to see progress."""
        terms = self.terms(prediction, target, mask)
        if self.training:
            with torch.no_grad():
                start = torch.where(self.weights.isnan(), terms.detach(), self.weights)
                self.weights.copy_(start + (1 - self.decay) * (terms.detach() - start))
        return (terms / self.weights.clamp_min(1e-8)).sum()


def _masked_mean(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    if mask.shape[-2:] != prediction.shape[-2:]:
        mask = F.interpolate(mask, size=prediction.shape[-2:], mode="bilinear", align_corners=False)
    return (mask * (prediction.float() - target.float()).square()).mean()
