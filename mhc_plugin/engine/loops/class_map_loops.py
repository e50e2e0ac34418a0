"""Loops whose predictions carry class maps."""

from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from mmpretrain.registry import LOOPS
from torch.utils.data import DataLoader

from mhc_plugin.class_maps import find_method, predictions_with_maps

from .feature_cache_loops import FeatureCacheEvalMixin, FeatureCacheTestLoop, FeatureCacheValLoop


class ClassMapMixin:
    """Put ``pred_cam`` on the data samples before metrics and hooks see them.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        evaluator (Evaluator | dict | list): Computes metrics; they find ``pred_cam``, float
            (num_classes, h, w), raw.
        fp16 (bool): See MMEngine's loop. Defaults to False.
        method (str): ``'inherent'``, or a method of ``pytorch_grad_cam``, which needs images and
            runs the backbone once more. Defaults to ``'inherent'``.

    Raises:
        ValueError: If there is no such method.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        method: str = 'inherent',
    ) -> None:
        if method != 'inherent':
            find_method(method)
        super().__init__(runner, dataloader, evaluator, fp16)
        self.method = method

    def run(self) -> dict:
        """Run the loop."""
        with predictions_with_maps(self.runner.model, self.method):
            return super().run()


@LOOPS.register_module()
class ClassMapValLoop(ClassMapMixin, ValLoop):
    """MMEngine's validation loop, with class maps.

    Args:
        runner, dataloader, evaluator, fp16, method: See :class:`ClassMapMixin`.
    """


@LOOPS.register_module()
class ClassMapTestLoop(ClassMapMixin, TestLoop):
    """MMEngine's test loop, with class maps.

    Args:
        runner, dataloader, evaluator, fp16, method: See :class:`ClassMapMixin`.
    """


class CachedClassMapMixin(FeatureCacheEvalMixin):
    """Class maps from stored features: inherent ones, of features that are stored as maps.

    Args:
        runner, dataloader, evaluator, fp16: See :class:`ClassMapMixin`.
        cache (dict, optional): Arguments of :class:`CacheOptions`; ``store`` is ``'maps'`` where it
            is not given. Defaults to None.
        method (str): ``'inherent'``, the default.

    Raises:
        ValueError: If another method or ``store`` is asked for.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool = False,
        cache: dict | None = None,
        method: str = 'inherent',
    ) -> None:
        if method != 'inherent':
            raise ValueError(
                "Expected argument `method` to be 'inherent' with the feature cache, "
                f'which has no images, but got {method!r}.'
            )
        cache = dict(store='maps') | dict(cache or {})
        if cache['store'] != 'maps':
            raise ValueError(
                "Expected argument `store` to be 'maps' for class maps from the "
                f'feature cache: pooled features have no places; but got {cache["store"]!r}.'
            )
        super().__init__(runner, dataloader, evaluator, fp16, cache)

    def run(self) -> dict:
        """Store the maps that are missing, and run the loop."""
        # First: what takes maps from the model would be part of what is described.
        self.use_features(self.name)
        with predictions_with_maps(self.runner.model):
            return super().run()


@LOOPS.register_module()
class FeatureCacheClassMapValLoop(CachedClassMapMixin, FeatureCacheValLoop):
    """Validate on stored features, with class maps.

    Args:
        runner, dataloader, evaluator, fp16, cache, method: See :class:`CachedClassMapMixin`.
    """


@LOOPS.register_module()
class FeatureCacheClassMapTestLoop(CachedClassMapMixin, FeatureCacheTestLoop):
    """Test on stored features, with class maps.

    Args:
        runner, dataloader, evaluator, fp16, cache, method: See :class:`CachedClassMapMixin`.
    """
