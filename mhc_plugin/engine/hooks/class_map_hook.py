"""Pictures of what every head looks at, from before the first step to the end."""

import copy
from collections.abc import Sequence

import torch
from mmengine.dataset import default_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS

from mhc_plugin.class_maps import (
    find_method,
    left_as_found,
    predictions_with_maps,
    unwrap_classifier,
)
from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.panels import MapView, draw_panel, truth_of
from mhc_plugin.utils.seeding import seeded


@HOOKS.register_module()
class ClassMapHook(Hook):
    """Draw class maps of the same few validation images while a model is trained.

    A panel per image goes to the visualizer's back ends (local files, TensorBoard, ...) as
    ``class_maps_<index>``: before the first step, every ``interval`` epochs and at the end; with
    an iteration-based loop before and at the end. Training goes on as if nothing had been drawn.
    With the feature cache the images themselves are drawn, too. The weights are those being
    trained, not their moving average.

    Args:
        interval (int): Draw every so many epochs. Defaults to 10.
        num_images (int): Draw the first so many validation images. Defaults to 4.
        indices (Sequence[int], optional): Draw these validation images instead.
        method (str): ``'inherent'``, or a method of ``pytorch_grad_cam``. Defaults to
            ``'inherent'``.
        enable (bool): Whether to draw at all. Defaults to True.

    Raises:
        ValueError: If a number is below 1 or there is no such method; before training, if there
            is no such image.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 10,
        num_images: int = 4,
        indices: Sequence[int] | None = None,
        method: str = 'inherent',
        enable: bool = True,
    ) -> None:
        for name, value in dict(interval=interval, num_images=num_images).items():
            if value < 1:
                raise ValueError(
                    f'Expected argument `{name}` to be an int of at least 1, but got {value!r}.'
                )
        if enable and method != 'inherent':
            find_method(method)
        self.interval = interval
        self.num_images = num_images
        self.indices = indices
        self.method = method
        self.enable = enable
        self._items: dict[int, dict] = {}
        self._drawn_at: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Take the images and draw what an untrained head looks at."""
        if not self.enable or not is_main_process():
            return
        if runner.val_loop is None:
            runner.logger.warning(
                'ClassMapHook draws validation images, of which this run has '
                'none; it is switched off.'
            )
            self.enable = False
            return
        self._items = self._load(runner.val_loop.dataloader.dataset)
        self._draw(runner, self._step(runner))

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw every ``interval`` epochs."""
        if self._items and self.every_n_epochs(runner, self.interval) and _by_epoch(runner):
            self._draw(runner, runner.epoch + 1)

    def after_train(self, runner: Runner) -> None:
        """Draw what the trained heads look at."""
        if self._items and self._drawn_at != self._step(runner):
            self._draw(runner, self._step(runner))

    def _load(self, dataset) -> dict[int, dict]:
        indices = self.indices
        if indices is None:
            indices = range(min(self.num_images, len(dataset)))
        missing = [index for index in indices if not 0 <= index < len(dataset)]
        if missing:
            raise ValueError(
                f'Expected argument `indices` to be in 0..{len(dataset) - 1}, the '
                f'validation images, but got {missing[0]}.'
            )
        with seeded(0):
            return {index: dataset[index] for index in indices}

    def _step(self, runner: Runner) -> int:
        return runner.epoch if _by_epoch(runner) else runner.iter

    def _draw(self, runner: Runner, step: int) -> None:
        model = unwrap_classifier(runner.model)
        meta = runner.visualizer.dataset_meta or {}
        with (
            left_as_found(model),
            predictions_with_maps(model, self.method),
            torch.no_grad(),
            seeded(0),
        ):
            for index, item in self._items.items():
                # A model writes its predictions into the sample that it is given.
                (sample,) = model.test_step(default_collate([copy.deepcopy(item)]))
                names = meta.get('classes') or range(len(sample.pred_score))
                panel = draw_panel(
                    packed_to_rgb(item['inputs'], model.data_preprocessor),
                    [MapView.of(sample)],
                    names,
                    truth_of(sample, len(names)),
                    f'image {index}, step {step}',
                )
                runner.visualizer.add_image(f'class_maps_{index}', panel, step=step)
        self._drawn_at = step


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)
