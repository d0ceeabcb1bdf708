"""What everything trainable shares: hyperparameters, a training loop that resumes, files without pickle."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from tqdm.auto import tqdm

from ulm import runs, zoo
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset, cached
from ulm.errors import InputError

Monitor = Callable[[Any, int], dict[str, float]]


class Trainable:
    """Base of all that is fitted to images without labels.

    Hyperparameters are the arguments of ``__init__`` and nothing else; each is an attribute of the same name. A
    sub-class builds its networks in :meth:`_build`, names those worth keeping in ``saved_parts`` and, of these, those
    that it cannot do without in ``detector_parts``, and defines :meth:`_optimisers` and :meth:`_train_step`.

    Attributes:
        networks: ``nn.ModuleDict`` of all networks; empty before ``fit`` or ``from_pretrained``.
        history_: One dict for each logged step: ``step``, ``images_seen``, ``seconds``, losses, monitored values.
    """

    name = "trainable"
    detector_parts: tuple[str, ...] = ("pose",)
    saved_parts: tuple[str, ...] = ("pose",)
    counts: tuple[str, ...] = ("batch_size", "steps")

    image_size: int
    batch_size: int
    steps: int
    seed: int
    device: str

    # --- hyperparameters ------------------------------------------------------------------------------------------

    @classmethod
    def parameter_names(cls) -> list[str]:
        """Names of all hyperparameters."""
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self) -> dict[str, Any]:
        """All hyperparameters."""
        return {name: getattr(self, name) for name in self.parameter_names()}

    def set_params(self, **parameters: Any) -> Self:
        """Change hyperparameters; networks built before are dropped.

        Raises:
            InputError: For an unknown name or a bad value.
        """
        self.__init__(**{**self.get_params(), **self.check_names(parameters)})  # type: ignore[misc]
        return self

    @classmethod
    def check_names(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a name that is no hyperparameter of this method."""
        unknown = sorted(set(parameters) - set(cls.parameter_names()))
        if unknown:
            known = ", ".join(cls.parameter_names())
            raise InputError(f"{cls.name}: found unknown hyperparameter {', '.join(unknown)}; expected among {known}")
        return parameters

    def _check_common(self) -> None:
        for name in self.counts:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"found {name}={value!r}, expected a whole number of at least 1")
        self.networks = nn.ModuleDict()
        self.history_: list[dict[str, float]] = []

    # --- what a method defines ------------------------------------------------------------------------------------

    def _build(self) -> nn.ModuleDict:
        raise TypeError(f"{type(self).__name__} defines no networks")

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        raise TypeError(f"{type(self).__name__} cannot be trained")

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        raise TypeError(f"{type(self).__name__} cannot be trained")

    def _needs_pairs(self) -> bool:
        """Whether a training batch consists of pairs of frames of one video."""
        return False

    # --- device and networks ------------------------------------------------------------------------------------

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` names. Raises InputError if there is none."""
        return runs.pick_device(self.device)

    def _ready(self) -> None:
        if not len(self.networks):
            raise InputError(f"this {type(self).__name__} has no weights yet; call fit or from_pretrained first")

    def _prepare(self, images: Tensor) -> Tensor:
        images = images.to(self.torch_device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return resize(images, self.image_size)

    def untrained(self) -> Self:
        """The same method with freshly initialised networks: the baseline that shows what training adds."""
        other = type(self)(**self.get_params())
        other.initialise()
        return other

    def initialise(self) -> None:
        """Build the networks from ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.networks = self._build()
        self.networks.to(self.torch_device, memory_format=torch.channels_last)
        self.networks.eval()

    # --- training -------------------------------------------------------------------------------------------------

    def fit(
        self,
        dataset: Dataset,
        *,
        checkpoint: Path | str | None = None,
        checkpoint_seconds: float = 60.0,
        monitor: Monitor | None = None,
        log_every: int | None = None,
        progress: bool = True,
        start: Trainable | None = None,
    ) -> Self:
        """Train on the images of ``dataset``; its landmarks are never looked at.

        Args:
            dataset: Any data set of the contract.
            checkpoint: A file (``.safetensors``) that is written every ``checkpoint_seconds`` and at the end, and
                from which an interrupted run goes on, to the same result.
            checkpoint_seconds: How much work a kill may lose.
            monitor: Called as ``monitor(self, step)`` at each logged step; its numbers join ``history_``.
            log_every: Steps between entries of ``history_``; default: about 40 entries.
            progress: Show a bar with the loss and the time left.
            start: A trained model of the same shape to start from (fine-tuning). Networks that it lacks begin anew.

        Raises:
            InputError: If the data set is too small, the checkpoint is of other settings, ``start`` has other shapes,
                or a loss is not finite.
        """
        data = self._check_data(dataset)
        self.initialise()
        if start is not None:
            self._start_from(start)
        self.optimisers, self.history_, first, before = self._optimisers(), [], 0, 0.0
        checkpoint = None if checkpoint is None else Path(checkpoint)
        begun = None if start is None else start.checksum()
        identity = json.dumps([self.name, self._identity(), data.fingerprint, begun], sort_keys=True)
        if checkpoint is not None and checkpoint.is_file():
            first, before = self._resume(checkpoint, identity)
        watch, saved = runs.Stopwatch(before), time.monotonic()
        every = log_every or max(1, self.steps // 40)
        bar = tqdm(
            range(first, self.steps),
            initial=first,
            total=self.steps,
            disable=not progress,
            desc=self.name,
            mininterval=1.0,
        )
        for step in bar:
            self.networks.train()
            settle_norms(self.networks)
            losses = self._train_step(*self._batch(data, step), step)
            if (step + 1) % every == 0 or step in (0, self.steps - 1):
                self._log(step, losses, watch, monitor, bar)
            if checkpoint is not None and time.monotonic() - saved > checkpoint_seconds:
                self._save_checkpoint(checkpoint, step + 1, watch.seconds, identity)
                saved = time.monotonic()
        self.networks.eval()
        self._finish(data)
        if checkpoint is not None and first < self.steps:
            self._save_checkpoint(checkpoint, self.steps, watch.seconds, identity)
        return self

    def _identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.get_params().items() if name != "device"}

    def checksum(self) -> str:
        """SHA-256 of the weights, as they are in memory. Raises InputError if there are none yet."""
        self._ready()
        return zoo.checksum(to_bytes({n: t.detach().cpu().contiguous() for n, t in self.networks.state_dict().items()}))

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        if len(dataset) < 2:
            raise InputError(f"found {len(dataset)} training image(s), expected at least 2; give more photographs")
        return cached(dataset)

    def _start_from(self, start: Trainable) -> None:
        # What it lacks, such as the generator of a model that ships as a detector only, begins anew.
        start._ready()
        for name in self.saved_parts:
            if name not in self.networks or name not in start.networks:
                continue
            try:
                self.networks[name].load_state_dict(start.networks[name].state_dict())
            except RuntimeError as error:
                raise InputError(
                    f"cannot start from {start!r}: its network '{name}' has other shapes than that of {self!r}; "
                    "give the same n_landmarks, image_size and width"
                ) from error

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Images (and partners from the same video) of one step; depends on ``seed`` and ``step`` alone."""
        indices, partners = self._indices(data, step)
        images = self._prepare(data.images_uint8(indices))
        return images, None if partners is None else self._prepare(data.images_uint8(partners))

    def _indices(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        # Every epoch is a permutation of its own; a batch may straddle two of them.
        n, wanted = len(data), torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = {
            int(e): torch.randperm(n, generator=runs.generator(torch.device("cpu"), self.seed, 1, int(e)))
            for e in (wanted // n).unique()
        }
        indices = torch.stack([epochs[int(i) // n][int(i) % n] for i in wanted])
        if not self._needs_pairs():
            return indices, None
        return indices, data.partners(indices, runs.generator(torch.device("cpu"), self.seed, 2, step))

    def _images_seen(self, steps: int) -> int:
        return steps * self.batch_size

    def _log(
        self, step: int, losses: dict[str, Tensor], watch: runs.Stopwatch, monitor: Monitor | None, bar: Any
    ) -> None:
        values = {name: float(value) for name, value in losses.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise InputError(
                f"step {step + 1}: {', '.join(bad)} is not finite; "
                "lower learning_rate, or look for broken images in the data"
            )
        entry = {
            "step": step + 1,
            "images_seen": self._images_seen(step + 1),
            "seconds": round(watch.seconds, 2),
            **values,
        }
        if monitor is not None:
            entry |= monitor(self, step + 1)
        self.history_.append(entry)
        bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)

    def _finish(self, data: CachedDataset) -> None:
        """Look at the result once; a method may warn here."""

    # --- checkpoints: one safetensors file, the rest as JSON in its header ------------------------------------------

    def _save_checkpoint(self, path: Path, step: int, seconds: float, identity: str) -> None:
        tensors = {f"networks/{name}": tensor for name, tensor in self.networks.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser/{name}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        header = {
            "step": str(step),
            "seconds": str(seconds),
            "identity": identity,
            "history": json.dumps(self.history_),
        }
        # A copy in standard layout: safetensors refuses channels_last.
        runs.atomic_write(
            path, to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, header)
        )

    def _resume(self, path: Path, identity: str) -> tuple[int, float]:
        tensors, header = read_safetensors(path)
        if header.get("identity") != identity:
            raise InputError(
                f"{path}: found a checkpoint of other settings or other data; "
                "delete it to start anew, or use the settings that it was made with"
            )
        self.networks.load_state_dict(dict(_under(tensors, "networks/")))
        for name, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(tensors, f"optimiser/{name}/"):
                index, field = key.split("/")
                state.setdefault(int(index), {})[field] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.history_ = json.loads(header["history"])
        return int(header["step"]), float(header["seconds"])

    # --- files ----------------------------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: Path | str, detector_only: bool = False, card: dict[str, Any] | None = None
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` (fp16; normalisation statistics and biases in fp32).

        Args:
            folder: Made if it is not there.
            detector_only: Leave out what only training and pictures need, such as a generator.
            card: Facts on how the model was made, stored in the config.
        """
        self._ready()
        folder = Path(folder)
        wanted = self.detector_parts if detector_only else self.saved_parts
        kept = {name: part for name, part in self.networks.items() if name in wanted}
        tensors = {key: _compact(tensor) for key, tensor in nn.ModuleDict(kept).state_dict().items()}
        weights = to_bytes(tensors, {"format": "pt", **self._header()})
        config = {
            "method": self.name,
            "parameters": self.get_params() | {"device": "auto"},
            "networks": sorted(kept),
            "sha256": zoo.checksum(weights),
            "history": self.history_,
            "card": card or {},
        }
        runs.atomic_write(folder / "model.safetensors", weights)
        runs.atomic_write(folder / "config.json", json.dumps(config, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, source: Path | str, device: str = "auto") -> Self:
        """Read a folder written by :meth:`save_pretrained`, or a model of the zoo by name.

        Raises:
            InputError: If there is no such model, it is of another method, its hash is wrong, or it holds a pickle.
        """
        from ulm.methods import load

        return load(source, device, cls)

    def _header(self) -> dict[str, str]:
        """What else the header of the weights says."""
        return {}

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        self.initialise()
        self.networks = nn.ModuleDict({name: self.networks[name] for name in names})
        tensors, _ = read_safetensors(folder / "model.safetensors")
        try:
            self.networks.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"{folder}: weights and config.json do not fit together; make the model again") from error

    def __repr__(self) -> str:
        default = {n: p.default for n, p in inspect.signature(type(self).__init__).parameters.items() if n != "self"}
        shown = ", ".join(f"{n}={v!r}" for n, v in self.get_params().items() if v != default[n])
        return f"{type(self).__name__}({shown})"


def resize(images: Tensor, size: int) -> Tensor:
    """``(B, C, H, W)`` to ``(B, C, size, size)``, bilinear, with antialiasing where it shrinks."""
    if images.shape[-2:] == (size, size):
        return images.contiguous(memory_format=torch.channels_last)
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors (fp16 becomes fp32) and the header of a file. Raises InputError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            header = file.metadata() or {}
    except Exception as error:
        raise InputError(
            f"{path}: found no readable safetensors file ({error}); make it again or fetch it anew"
        ) from error
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}, header


def _compact(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    return tensor.half() if tensor.is_floating_point() and tensor.ndim >= 2 else tensor


def _under(tensors: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def cosine(step: int, steps: int, warm_up: int = 100) -> float:
    """Factor on the learning rate: rises over ``warm_up`` steps, then falls to zero as a half cosine."""
    rise = min(1.0, (step + 1) / min(warm_up, steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step down the gradient of ``loss`` with the learning rate ``rate``."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def settle_norms(networks: nn.Module) -> None:
    """Running statistics of batch normalisation as a plain average at first, then with the layers' own momentum.

    They start at mean 0 and variance 1 and, with the authors' momentum of 0.01, still hold a third of that after 100
    updates: the detector that is evaluated would not be the one that is trained. Long runs are not changed by this.
    Each layer is asked for its own number of updates, as a generator need not run at every step.
    """
    for layer in networks.modules():
        if isinstance(layer, nn.BatchNorm2d):
            if not hasattr(layer, "usual_momentum"):
                layer.usual_momentum, layer.momentum = layer.momentum, 1.0
            # The count lies on the device: it is no longer read once the layer has settled.
            if layer.momentum != layer.usual_momentum:
                layer.momentum = max(layer.usual_momentum, 1 / (int(layer.num_batches_tracked) + 1))


def check_choices(model: Any, choices: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises InputError for a hyperparameter that is none of its choices."""
    for name, known in choices.items():
        if getattr(model, name) not in known:
            named = ", ".join(str(choice) for choice in known if choice is not None)
            raise InputError(f"found {name}={getattr(model, name)!r}, expected one of {named}")


def check_numbers(model: Any, least: Mapping[str, float]) -> None:
    """Raises InputError for a hyperparameter that is no finite number, or less than its least value."""
    for name, bound in least.items():
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not bound <= value < float("inf"):
            raise InputError(f"found {name}={value!r}, expected a number of at least {bound:g}")
