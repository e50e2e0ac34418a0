"""Equal batch statistics in all processes."""

from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@HOOKS.register_module()
class SyncTrainedBuffersHook(Hook):
    """Average the batch statistics of trained norms over the processes after every iteration.

    MMEngine keeps each process's batch statistics to itself, so that without SyncBN, which refuses
    CPU tensors, validation during training differs from testing the checkpoint, which holds those
    of one process. Its ``SyncBuffersHook`` averages at the end of an epoch, when ``EMAHook``
    has copied the statistics already, and takes the frozen backbone along. Running averages are
    linear in what they average, so after every iteration gives the same as after every epoch.

    Running mean and variance of norms in training mode are averaged, and nothing else: the mean of
    n equal numbers need not be that number, so that other buffers (the preprocessor's mean, a
    loss's weights, masks, a frozen backbone) would drift. SyncBN's are equal already. Does nothing
    in a single process.
    """

    # Before EMAHook (NORMAL), which copies or averages the buffers in the same place.
    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Average the statistics.

        Args:
            runner (Runner): The runner of the training process.
            batch_idx (int): Not used.
            data_batch (dict, optional): Not used.
            outputs (dict, optional): Not used.
        """
        if get_world_size() == 1:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        statistics = [
            buffer
            for module in model.modules()
            if isinstance(module, _NormBase) and not isinstance(module, nn.SyncBatchNorm)
            if module.training and module.running_mean is not None
            for buffer in (module.running_mean, module.running_var)
        ]
        if statistics:
            all_reduce_params(statistics, op='mean')
