"""Mixed precision without a GPU, and parameters with settings of their own beside frozen ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
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


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, over the modules that have something to train.

    With ``paramwise_cfg`` MMEngine's own warns of every parameter that needs no gradient: for a
    frozen backbone, hundreds of lines. Arguments and groups of parameters are the same.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the parameters of a module and, through this method, of those within it.

        Args:
            params (list[dict]): Groups of parameters, to which it adds.
            module (nn.Module): The module.
            prefix (str): Its name. Defaults to ''.
            is_dcn_module (int | float, optional): See MMEngine's. Defaults to None.
        """
        if any(parameter.requires_grad for parameter in module.parameters()):
            super().add_params(params, module, prefix, is_dcn_module)
