"""MMEngine's loops over stored features of a frozen backbone."""

from typing import Any

from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.registry import LOOPS
from torch import nn

from mhc_plugin.features.dataset import FeatureDataset
from mhc_plugin.features.loader import cached_loader
from mhc_plugin.features.options import DEFAULT_CACHE_DIR, CacheOptions


class FeatureCacheMixin:
    """What the loops of the feature cache share: an exchange of their data loader.

    It comes before a loop of MMEngine among the base classes. Options are those of
    :class:`CacheOptions`.
    """

    cache_options: CacheOptions

    def use_features(self: BaseLoop, name: str, training: bool = False) -> None:
        """Put stored features in the place of images, computing those that are missing.

        Does nothing the second time. Call it once the model has its weights, in all processes.

        Args:
            name (str): What the images are for, for log lines.
            training (bool): Whether the model is trained on them. Defaults to False.
        """
        if not isinstance(self.dataloader.dataset, FeatureDataset):
            self.dataloader = cached_loader(
                self.runner, self.dataloader, self.cache_options, name, training
            )


@LOOPS.register_module()
class FeatureCacheTrainLoop(FeatureCacheMixin, EpochBasedTrainLoop):
    """Train a head on stored features: the frozen backbone runs once per image and view.

    Before it runs, every image passes the backbone once per view, a view being one draw of the
    training augmentation, and what comes out is stored on disk. Then epochs run over stored
    features, in each of them one view per image, drawn from (seed, epoch). The data loader is all
    that is exchanged: sampler, batch size and order, hooks, schedules, validation and checkpoints
    are those of ``EpochBasedTrainLoop``. ``data_batch['inputs']`` is a tuple of features.

    Features are found again by content, so runs share them that differ in the head (as long as it
    reads the same), loss or schedule, and a changed image, weight or transform is computed anew.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        max_epochs (int): Number of epochs.
        cache_dir (str): Folder of the cache. Defaults to ``'work_dirs/feature_cache'``.
        views (int): Draws of the augmentation per image; one is taken where it draws nothing.
            Defaults to 1.
        precision (str): What the backbone computes in, ``'fp32'`` or ``'bf16'``. bfloat16 is
            several times faster on new processors and moves features by some percent. Defaults to
            ``'fp32'``.
        storage (str): ``'fp16'`` or ``'fp32'``. Defaults to ``'fp16'``.
        store (str): ``'auto'`` stores pooled vectors where the head needs no more; ``'maps'``
            always stores maps, from which later runs get vectors. Defaults to ``'auto'``.
        trust_mtime (bool): Whether an image whose size, times and inode are as they were counts as
            unchanged. Defaults to False, which reads every image's bytes when a run starts.
        compile (bool): Whether to compile the backbone. Defaults to False.
        **kwargs: See MMEngine's ``EpochBasedTrainLoop``.

    Raises:
        ValueError: If an option is unknown; at :meth:`run` if the model is no
            ``FrozenBackboneClassifier``, its neck is trained, or batches are augmented.
        OSError: At :meth:`run`, if the disk has no room for the features.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        cache_dir: str = DEFAULT_CACHE_DIR,
        views: int = 1,
        precision: str = 'fp32',
        storage: str = 'fp16',
        store: str = 'auto',
        trust_mtime: bool = False,
        compile: bool = False,
        **kwargs,
    ) -> None:
        self.cache_options = CacheOptions(
            cache_dir, views, precision, storage, store, trust_mtime, compile
        )
        super().__init__(runner, dataloader, max_epochs, **kwargs)

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


@LOOPS.register_module()
class FeatureCacheValLoop(FeatureCacheMixin, ValLoop):
    """Validate on stored features of a frozen backbone.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        evaluator (Evaluator | dict | list): Computes metrics.
        cache_dir, precision, storage, store, trust_mtime, compile: See
            :class:`FeatureCacheTrainLoop`.
        **kwargs: See MMEngine's ``ValLoop``.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        cache_dir: str = DEFAULT_CACHE_DIR,
        precision: str = 'fp32',
        storage: str = 'fp16',
        store: str = 'auto',
        trust_mtime: bool = False,
        compile: bool = False,
        **kwargs,
    ) -> None:
        self.cache_options = CacheOptions(
            cache_dir, 1, precision, storage, store, trust_mtime, compile
        )
        super().__init__(runner, dataloader, evaluator, **kwargs)

    def run(self) -> dict:
        """Store the features that are missing, and validate."""
        self.use_features('val')
        return super().run()


@LOOPS.register_module()
class FeatureCacheTestLoop(FeatureCacheMixin, TestLoop):
    """Test on stored features of a frozen backbone.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        evaluator (Evaluator | dict | list): Computes metrics.
        cache_dir, precision, storage, store, trust_mtime, compile: See
            :class:`FeatureCacheTrainLoop`.
        **kwargs: See MMEngine's ``TestLoop``.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        cache_dir: str = DEFAULT_CACHE_DIR,
        precision: str = 'fp32',
        storage: str = 'fp16',
        store: str = 'auto',
        trust_mtime: bool = False,
        compile: bool = False,
        **kwargs,
    ) -> None:
        self.cache_options = CacheOptions(
            cache_dir, 1, precision, storage, store, trust_mtime, compile
        )
        super().__init__(runner, dataloader, evaluator, **kwargs)

    def run(self) -> dict:
        """Store the features that are missing, and test."""
        self.use_features('test')
        return super().run()
