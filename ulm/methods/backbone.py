"""What methods on a frozen diffusion model share: the model, named and attached, and what is kept of its images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset, cache_folder
from ulm.datasets.hashing import digest
from ulm.errors import InputError
from ulm.methods.base import Detector

if TYPE_CHECKING:
    from ulm.diffusion.pipelines import Pipeline


class OnDiffusion(Detector):
    """Base of detectors that learn something small on a frozen diffusion model, which is named and never saved.

    Attributes:
        prediction: Hyperparameters that a prediction alone looks at: changing them keeps what was learned.
        learned: Word for what is learned, for messages.
    """

    prediction: tuple[str, ...] = ()
    learned = "weights"

    backbone: str
    precision: str
    cache: str
    micro_batch: int

    def _check_common(self) -> None:
        super()._check_common()
        self._pipeline: Pipeline | None = None
        self._latents: LatentCache | None = None

    def set_params(self, **parameters: Any) -> Self:
        """Change hyperparameters; what was learned before is dropped, the diffusion model stays if it is the same.

        What only a prediction looks at (:attr:`prediction`) leaves what was learned too.

        Raises:
            InputError: For an unknown name or a bad value.
        """
        kept, learned = self._pipeline, (self.networks, self.history_)
        super().set_params(**parameters)
        if set(parameters) <= set(self.prediction):
            self.networks, self.history_ = learned
        if kept is not None and not {"backbone", "device", "precision"} & set(parameters):
            self.attach(kept)
        return self

    @property
    def pipeline(self) -> Pipeline:
        """The frozen diffusion model, loaded when it is first needed. Raises InputError if it cannot be."""
        if self._pipeline is None:
            self.attach(load_backbone(self.backbone, str(self.torch_device), self.precision))
        assert self._pipeline is not None
        return self._pipeline

    def attach(self, pipeline: Pipeline) -> Self:
        """Use a diffusion model that is in memory, whatever ``backbone`` says, such as an untrained one.

        Raises:
            InputError: If what was learned does not fit it.
        """
        if len(self.networks):
            self._check_fit(pipeline)
            if not same_backbone(self._trained_with(), fingerprint(pipeline)):
                warnings.warn(
                    f"the weights of {pipeline.name} are not those that these {self.learned} were trained with; "
                    "expect worse landmarks",
                    RuntimeWarning,
                    stacklevel=2,
                )
        if self.image_size < pipeline.latent_size:
            raise InputError(
                f"found image_size={self.image_size}, smaller than the latents of {pipeline.name} "
                f"({pipeline.latent_size} x {pipeline.latent_size}); raise image_size"
            )
        self._pipeline = pipeline.to(self.torch_device)
        return self

    def _check_fit(self, pipeline: Pipeline) -> None:
        """Raises InputError if what was learned cannot be used with ``pipeline``."""

    def _trained_with(self) -> Tensor:
        """The fingerprint of the diffusion model that what was learned belongs to."""
        raise TypeError(f"{type(self).__name__} does not say what it was trained with")

    def untrained(self) -> Self:
        """The same method, freshly initialised, with the same diffusion model: what training adds to."""
        other = type(self)(**self.get_params())
        other._pipeline = self._pipeline
        other.initialise()
        return other

    def predict(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Detect landmarks; see :meth:`ulm.methods.base.Detector.predict`.

        Raises:
            InputError: Also if the images are smaller than the latents of the diffusion model.
        """
        self._ready()
        if images.ndim == 4 and len(images):
            self._check_size(images.shape[-2:])
        return super().predict(images, batch_size)

    def _check_size(self, size: Sequence[int]) -> None:
        least = self.pipeline.latent_size
        if min(size) < least:
            raise InputError(
                f"found images of {size[1]} x {size[0]} pixels, smaller than the latents ({least} x {least}); "
                "give larger images"
            )

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        data = super()._check_data(dataset)
        self._check_size(data.images.shape[-2:])
        return data

    def _identity(self) -> dict[str, Any]:
        # Where latents lie does not change the result; other weights behind the same name do.
        hashed = digest(fingerprint(self.pipeline).tolist())
        return {k: v for k, v in super()._identity().items() if k != "cache"} | {"backbone weights": hashed}

    def _latents_of(self, data: CachedDataset, indices: Tensor) -> Tensor:
        known = self._latents
        if known is None or known.data is not data or known.pipeline is not self.pipeline:
            together = self.micro_batch
            self._latents = known = LatentCache(self.pipeline, data, self.image_size, self.cache, together)
        return known(indices, lambda places: self._prepare(data.images_uint8(places)))


_LOADED: WeakValueDictionary[tuple[str, str, str], Any] = WeakValueDictionary()


def load_backbone(name: str, device: str, precision: str = "auto") -> Pipeline:
    """Load a diffusion model, or hand out the one that another detector of this process holds.

    Args:
        name: See :func:`ulm.diffusion.pipelines.load`, which also says what is raised.
        device: Such as ``cpu`` or ``cuda:0``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
    """
    from ulm.diffusion import pipelines

    key = (name, device, precision)
    found = _LOADED.get(key)
    if found is None:
        _LOADED[key] = found = pipelines.load(name, device=device, dtype=precision)
    return found


@torch.no_grad()
def fingerprint(pipeline: Pipeline) -> Tensor:
    """A few hundred weights of the U-Net and the image encoder, float32 ``(n,)`` on the CPU: one of each matrix."""
    parts = (pipeline.unet, pipeline.vae.encoder)
    weights = [p.detach().reshape(-1) for part in parts for p in part.parameters() if p.ndim >= 2]
    return torch.stack([w[len(w) // 3].float() for w in weights]).cpu()


def same_backbone(first: Tensor, second: Tensor, tolerance: float = 0.01) -> bool:
    """Whether two fingerprints are of the same weights, whatever the precision; bfloat16 rounds by 0.002 at most."""
    if first.shape != second.shape:
        return False
    first, second = first.cpu(), second.cpu()
    return bool((first - second).norm() <= tolerance * first.norm())


class Rows:
    """Half-precision numbers of images, made when first asked for.

    A network looks at sixteen small images together in the time of three one by one; but the last bits of its numbers
    depend on what else is in a batch. So the images of a data set are made in blocks of neighbours, always the same
    ones: numbers do not depend on the order in which they are asked for, nor on whether a run was interrupted.

    Args:
        n: Images.
        shape: Of the numbers of one image.
        folder: Below the cache folder.
        key: What the numbers depend on.
        where: ``disk``: a file that other runs share; ``memory``.
        block: Images that are made together.

    Raises:
        InputError: If the file cannot be written.
    """

    field = "values"

    def __init__(
        self, n: int, shape: tuple[int, ...], folder: str, key: Sequence[Any], where: str = "disk", block: int = 1
    ):
        self.block = block
        row = np.dtype([(self.field, np.float16, shape), ("known", np.bool_)])
        if where == "memory":
            self.rows = np.zeros(n, row)
            return
        file = cache_folder() / folder / f"{digest(*key, block)}.rows"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Zeros that take no room until they are written; does nothing where the file is there.
            with file.open("ab") as stream:
                stream.truncate(n * row.itemsize)
            self.rows = np.memmap(file, row, "r+", shape=(n,))
        except OSError as error:
            raise InputError(f"found no room for {folder} at {file} ({error}); give cache=memory") from None

    def read(self, places: Sequence[int], make: Callable[[list[int]], Tensor]) -> Tensor:
        """The rows at ``places``, float32 on the CPU; ``make(places)`` gives those of a block that is not known yet."""
        for place in places:
            if not self.rows["known"][place]:
                start = place - place % self.block
                together = slice(start, min(start + self.block, len(self.rows)))
                self.rows[self.field][together] = make(list(range(together.start, together.stop))).half().cpu().numpy()
                # After the numbers: a kill between the two leaves them to be made again.
                self.rows["known"][together] = True
        return torch.from_numpy(self.rows[self.field][list(places)].astype(np.float32))


class LatentCache(Rows):
    """Latents of the images of one data set, encoded when first asked for and kept as fp16.

    Args:
        pipeline: The diffusion model.
        data: The data set.
        image_size: Side of the images that are encoded.
        where: ``disk``: a file in the cache folder, which other runs share; ``memory``.
        block: Images that are encoded together.

    Raises:
        InputError: If the file cannot be written.
    """

    field = "latent"

    def __init__(self, pipeline: Pipeline, data: CachedDataset, image_size: int, where: str = "disk", block: int = 1):
        self.pipeline, self.data = pipeline, data
        size = pipeline.latent_size
        kind = [str(next(pipeline.vae.parameters()).dtype), pipeline.device.type]
        key = (1, data.fingerprint, len(data), data.size, image_size, size, fingerprint(pipeline).tolist(), kind)
        super().__init__(len(data), (4, size, size), "latents", key, where, block)

    @torch.no_grad()
    def __call__(self, indices: Iterable[Any], images: Callable[[list[int]], Tensor]) -> Tensor:
        """Latents ``(B, 4, h, w)`` float32 on the pipeline's device of the images at ``indices``.

        Args:
            indices: Places in the data set.
            images: ``images(places)`` gives ``(b, 3, S, S)`` in [0, 1] on the device, of a block not known yet.
        """
        places = [int(index) for index in indices]
        return self.read(places, lambda block: self.pipeline.latents(images(block))).to(self.pipeline.device)
