"""Loops whose predictions carry class maps."""

from typing import Any

from mmengine.runner import Runner, TestLoop, ValLoop
from mmpretrain.registry import LOOPS

from mhc_plugin.class_maps import find_method, predictions_with_maps

from .feature_cache_loops import FeatureCacheTestLoop, FeatureCacheValLoop


class ClassMapMixin:
    """Put ``pred_cam`` on the data samples before metrics and hooks see them.

    Args:
        runner (Runner): The runner.
        *args, **kwargs: Other arguments of the loop that this is mixed into.
        method (str): ``'inherent'``, or a method of ``pytorch_grad_cam``, which needs images and
            runs the backbone once more. Defaults to ``'inherent'``.

    Raises:
        ValueError: If there is no such method.
    """

    def __init__(self, runner: Runner, *args: Any, method: str = 'inherent', **kwargs: Any) -> None:
        if method != 'inherent':
            find_method(method)
        super().__init__(runner, *args, **kwargs)
        self.method = method

    def run(self) -> dict:
        """Run the loop; its metrics find ``pred_cam``, float (num_classes, h, w), raw."""
        with predictions_with_maps(self.runner.model, self.method):
            return super().run()


@LOOPS.register_module()
class ClassMapValLoop(ClassMapMixin, ValLoop):
    """MMEngine's validation loop, with class maps.

    Args:
        runner, dataloader, evaluator, fp16: See ``mmengine.runner.ValLoop``.
        method (str): See :class:`ClassMapMixin`.
    """


@LOOPS.register_module()
class ClassMapTestLoop(ClassMapMixin, TestLoop):
    """MMEngine's test loop, with class maps.

    Args:
        runner, dataloader, evaluator, fp16: See ``mmengine.runner.TestLoop``.
        method (str): See :class:`ClassMapMixin`.
    """


class CachedClassMapMixin(ClassMapMixin):
    """Class maps from stored features: inherent ones, of features that are stored as maps.

    Raises:
        ValueError: If another method or ``store`` is asked for.
    """

    def __init__(
        self, *args: Any, method: str = 'inherent', store: str = 'maps', **kwargs: Any
    ) -> None:
        if method != 'inherent':
            raise ValueError(
                "Expected argument `method` to be 'inherent' with the feature cache, "
                f'which has no images, but got {method!r}.'
            )
        if store != 'maps':
            raise ValueError(
                "Expected argument `store` to be 'maps' for class maps from the "
                f'feature cache: pooled features have no places; but got {store!r}.'
            )
        super().__init__(*args, method=method, store=store, **kwargs)


@LOOPS.register_module()
class FeatureCacheClassMapValLoop(CachedClassMapMixin, FeatureCacheValLoop):
    """Validate on stored features, with class maps.

    Args:
        runner, dataloader, evaluator, **kwargs: See :class:`FeatureCacheValLoop`; ``store`` is
            ``'maps'``.
    """


@LOOPS.register_module()
class FeatureCacheClassMapTestLoop(CachedClassMapMixin, FeatureCacheTestLoop):
    """Test on stored features, with class maps.

    Args:
        runner, dataloader, evaluator, **kwargs: See :class:`FeatureCacheTestLoop`; ``store`` is
            ``'maps'``.
    """
