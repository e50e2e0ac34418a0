"""Equal batch statistics in all processes."""

from typing import Any

from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class SyncTrainedBuffersHook(Hook):
    """Average the buffers of trained modules over the processes after every iteration.

    MMEngine keeps each process's batch statistics to itself, so that without SyncBN, which refuses
    CPU tensors, validation during training differs from testing the checkpoint, which holds those
    of one process. Its ``SyncBuffersHook`` averages at the end of an epoch, when ``EMAHook``
    has copied the statistics already, and takes the frozen backbone along. Running averages are
    linear in what they average, so after every iteration gives the same as after every epoch.

    Only floating-point buffers of modules in training mode are averaged: nothing of a frozen
    backbone may move by a bit. Does nothing in a single process.
    """

    # Before EMAHook (NORMAL), which copies or averages the buffers in the same place.
    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Average the buffers.

        Args:
            runner (Runner): The runner of the training process.
            *args, **kwargs: Not used.
        """
        if get_world_size() == 1:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        buffers = [
            buffer
            for module in model.modules()
            if module.training
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        if buffers:
            all_reduce_params(buffers, op='mean')
