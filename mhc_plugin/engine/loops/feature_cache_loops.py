"""MMEngine's loops over stored features of a frozen backbone."""

from collections.abc import Sequence
from dataclasses import replace

from mmengine.evaluator import Evaluator
from mmengine.runner import EpochBasedTrainLoop, Runner, TestLoop, ValLoop
from mmpretrain.registry import LOOPS
from torch import nn
from torch.utils.data import DataLoader

from mhc_plugin.features.dataset import FeatureDataset
from mhc_plugin.features.loader import cached_loader
from mhc_plugin.features.options import CacheOptions


class FeatureCacheMixin:
    """What the loops of the feature cache share: an exchange of their data loader.

    It comes before a loop of MMEngine among the base classes.
    """

    runner: Runner
    dataloader: DataLoader
    cache: CacheOptions

    def use_features(self, name: str, training: bool = False) -> None:
        """Put stored features in the place of images, computing those that are missing.

        Does nothing the second time. Call it once the model has its weights, in all processes.

        Args:
            name (str): What the images are for, for log lines.
            training (bool): Whether the model is trained on them. Defaults to False.
        """
        if not isinstance(self.dataloader.dataset, FeatureDataset):
            self.dataloader = cached_loader(
                self.runner, self.dataloader, self.cache, name, training
            )


@LOOPS.register_module()
class FeatureCacheTrainLoop(FeatureCacheMixin, EpochBasedTrainLoop):
    """Train a head on stored features: the frozen backbone runs once per image and view.

    Before it runs, every image passes the backbone once per view, a view being one draw of the
    training augmentation, and what comes out is stored on disk. Then epochs run over stored
    features, in each of them one view per image, drawn from (seed, epoch). The data loader is all
    that is exchanged: sampler, batch size and order, hooks, schedules, validation and checkpoints
    are those of ``EpochBasedTrainLoop``. ``data_batch['inputs']`` is of the type ``Features``.

    Features are found again by content, so runs share them that differ in the head (as long as it
    reads the same), loss or schedule, and a changed image, weight or transform is computed anew.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        max_epochs (int): Number of epochs.
        val_begin, val_interval, dynamic_intervals: See MMEngine's ``EpochBasedTrainLoop``.
        cache (dict, optional): Arguments of :class:`CacheOptions`. Defaults to None, which means
            its defaults.

    Raises:
        ValueError: If an option is unknown; at :meth:`run` if the model is no
            ``FrozenBackboneClassifier``, its neck is trained, or batches are augmented.
        OSError: At :meth:`run`, if the disk has no room for the features.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
        cache: dict | None = None,
    ) -> None:
        self.cache = CacheOptions(**(cache or {}))
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)

    def run(self) -> nn.Module:
        """Store the features that are missing, of validation too, and train."""
        self.use_features('train', training=True)
        if isinstance(self.runner.val_loop, FeatureCacheMixin):
            self.runner.val_loop.use_features('val')
        return super().run()

    def run_epoch(self) -> None:
        """Iterate one epoch, over one view per image."""
        self.dataloader.dataset.set_epoch(self._epoch)
        super().run_epoch()


class FeatureCacheEvalMixin(FeatureCacheMixin):
    """What validation and test share.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        evaluator (Evaluator | dict | list): Computes metrics.
        fp16 (bool): See MMEngine's loop. Defaults to False.
        cache (dict, optional): Arguments of :class:`CacheOptions`; there is one view, whatever
            ``views`` says. Defaults to None, which means its defaults.
    """

    name: str

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        cache: dict | None = None,
    ) -> None:
        self.cache = replace(CacheOptions(**(cache or {})), views=1)
        super().__init__(runner, dataloader, evaluator, fp16)

    def run(self) -> dict:
        """Store the features that are missing, and validate or test."""
        self.use_features(self.name)
        return super().run()


@LOOPS.register_module()
class FeatureCacheValLoop(FeatureCacheEvalMixin, ValLoop):
    """Validate on stored features of a frozen backbone.

    Args:
        runner, dataloader, evaluator, fp16, cache: See :class:`FeatureCacheEvalMixin`.
    """

    name = 'val'


@LOOPS.register_module()
class FeatureCacheTestLoop(FeatureCacheEvalMixin, TestLoop):
    """Test on stored features of a frozen backbone.

    Args:
        runner, dataloader, evaluator, fp16, cache: See :class:`FeatureCacheEvalMixin`.
    """

    name = 'test'
