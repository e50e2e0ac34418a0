"""Mixed precision without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward under bfloat16 autocast on CPU.

    bfloat16 has the range of float32, so the loss is not scaled. ``tools/train.py --amp`` uses it
    in place of MMEngine's ``AmpOptimWrapper``, which insists on a GPU. Arguments are those of
    ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward, and keep gradients local while they accumulate.

        Args:
            model (nn.Module): The model that is trained.
        """
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
