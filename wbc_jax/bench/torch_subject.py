"""A twin made ready to be timed: the same fixed batch, optimiser, mode and number of threads as our step."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from wbc_jax.bench.subject import LEARNING_RATE, Case
from wbc_jax.errors import UsageError
from wbc_jax.models.attribute_groups import GROUP_SIZES
from wbc_jax.runtime.cpus import usable_cpus
from wbc_jax.train.augment import IMAGENET_MEAN, IMAGENET_STD


def torch_device() -> str:
    """The torch device of the kind that jax computes on; threads and cudnn are set for it.

    Raises:
        UsageError: jax uses an accelerator that this torch does not.
    """
    import jax
    import torch

    backend = jax.default_backend()
    torch.set_num_threads(usable_cpus())
    if backend == "cpu":
        return "cpu"
    if backend == "gpu" and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        return "cuda"
    raise UsageError(
        f"jax computes on {backend}, where this torch {torch.__version__} cannot",
        expected="a build of torch for the same device",
        where="wbc-jax benchmark compare",
        remedy="install torch for CUDA, or set JAX_PLATFORMS=cpu to compare on the CPU",
    )


class TorchSubject:
    """A twin that trains or predicts on the case's batch; `run(steps)` goes on from where it stopped.

    Attributes:
        label: what the peer column says.
        first_loss: of the first training step; None before.
    """

    def __init__(self, twin: Any, case: Case, *, device: str, compile_mode: str | None) -> None:
        """
        Args:
            twin: torch module, from `build_twin`; it is moved to the device.
            case: gives batch, mode and activation type.
            device: cpu or cuda.
            compile_mode: mode of torch.compile; None: eager.
        """
        import torch

        self._torch, self._device, self._train = torch, device, case.mode == "train"
        self._twin = twin.to(device=device, memory_format=torch.channels_last).train(self._train)
        self._forward = self._twin if compile_mode is None else torch.compile(self._twin, mode=compile_mode)
        self._optimizer = torch.optim.RAdam(self._twin.parameters(), lr=LEARNING_RATE, foreach=True)
        self._share = case.attribute_share
        self._low_precision = np.dtype(case.dtype).itemsize == 2
        batch = case.batch()
        images = (batch.images / 255.0 - np.asarray(IMAGENET_MEAN)) / np.asarray(IMAGENET_STD)
        # A transposed view of NHWC pixels is what torch calls channels-last: nothing is copied.
        self._images = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2).to(device)
        self._labels = torch.from_numpy(batch.labels.astype(np.int64)).to(device)
        self._attributes = torch.from_numpy(batch.attributes.astype(np.int64)).to(device)
        form = "eager" if compile_mode is None else f"compiled, {compile_mode}"
        self.label = f"torch {torch.__version__} {form}"
        self.first_loss: float | None = None
        self._loss: Any = None

    def run(self, steps: int) -> None:
        """Carries out that many steps and waits for the last."""
        for _ in range(steps):
            if self._train:
                self._train_step()
            else:
                self._predict()
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    @property
    def last_loss(self) -> float | None:
        return None if self._loss is None else float(self._loss)

    def probabilities(self) -> np.ndarray:
        """float32 `(B, K)`."""
        return self._predict().float().cpu().numpy()

    def _train_step(self) -> None:
        with self._autocast():
            loss = self._loss_of(self._forward(self._images))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()
        if self.first_loss is None:
            self.first_loss = float(self._loss)

    def _predict(self) -> Any:
        with self._torch.inference_mode(), self._autocast():
            output = self._forward(self._images)
            logits = output[0] if self._share else output
            return self._torch.softmax(logits.float(), dim=-1)

    def _loss_of(self, output: Any) -> Any:
        """Cross entropy of the class; with attributes the share of theirs beside it, the mean over all of them."""
        cross_entropy = self._torch.nn.functional.cross_entropy
        if not self._share:
            return cross_entropy(output, self._labels)
        logits, attributes = output
        groups = attributes.split(GROUP_SIZES, 1)
        losses = [cross_entropy(group, self._attributes[:, index]) for index, group in enumerate(groups)]
        mean = self._torch.stack(losses).mean()
        return self._share * mean + (1 - self._share) * cross_entropy(logits, self._labels)

    def _autocast(self) -> Any:
        if not self._low_precision:
            return contextlib.nullcontext()
        return self._torch.autocast(self._device, dtype=self._torch.bfloat16)
