"""Checkpoints and data that belong together."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.registry import HOOKS

from mhc_plugin.datasets.class_lists import class_list_difference, num_classes_difference
from mhc_plugin.models.backbone_weights import check_weights

# Data of a runner's three loops, and where a config names them.
_SETTINGS = {
    'the training data': 'train_dataloader.dataset',
    'the validation data': 'val_dataloader.dataset',
    'the test data': 'test_dataloader.dataset',
}


@HOOKS.register_module()
class MatchingCheckpointHook(Hook):
    """Refuse what does not belong together, before anything is computed with it.

    All data of a run have the same classes in the same order, as many as the head. A checkpoint
    that is tested or resumed holds every weight of the model and was trained on these classes;
    MMEngine would warn and go on with what it has. One that a training begins from
    (``load_from``) may be of another model: its other head is left out, as everywhere.

    Raises:
        ValueError: When a run starts, or loads its checkpoint.
    """

    # Before EMAHook, which loads what it finds.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compare the classes of the data that this run reads.

        Args:
            runner (Runner): The runner.
        """
        classes = _classes_of_data(runner)
        model = getattr(runner.model, 'module', runner.model)
        num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
        for whose, names in classes.items():
            problem = num_classes is not None and num_classes_difference(
                num_classes, names, _SETTINGS[whose]
            )
            if problem:
                raise ValueError(problem)
        _check_classes(classes)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes of weights, and classes.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded.
        """
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            return
        check_weights(runner.model, checkpoint, runner._load_from)
        classes = (checkpoint.get('meta', {}).get('dataset_meta') or {}).get('classes')
        if classes:
            _check_classes({'the checkpoint': classes, **_classes_of_data(runner)})


def _check_classes(lists: dict[str, Sequence[str]]) -> None:
    (first_name, first), *others = lists.items() or [('', ())]
    for name, classes in others:
        problem = class_list_difference(first, classes, first_name, name)
        if problem is not None:
            raise ValueError(problem)


def _classes_of_data(runner: Runner) -> dict[str, Sequence[str]]:
    """The classes of the data of loops that are built, as they are when a run starts."""
    loops = (runner._train_loop, runner._val_loop, runner._test_loop)
    found = {
        name: getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
        for name, loop in zip(_SETTINGS, loops)
        if isinstance(loop, BaseLoop)
    }
    return {name: classes for name, classes in found.items() if classes}
