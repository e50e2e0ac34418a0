"""Checkpoints and data that belong together."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.registry import HOOKS

from mhc_plugin.datasets.targets import check_same_classes
from mhc_plugin.models.backbone_weights import check_weights


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
        check_same_classes(classes)
        whose, names = next(iter(classes.items()), (None, None))
        model = getattr(runner.model, 'module', runner.model)
        num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
        if names and num_classes is not None and num_classes != len(names):
            raise ValueError(
                f'Expected `num_classes` of the head to be the number of classes of {whose}, but '
                f'got {num_classes} for {len(names)}: set `model.head.num_classes` and the '
                "data set's `classes` to the same."
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes of weights, and classes.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded.
        """
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            return
        check_weights(runner.model, checkpoint, runner._load_from)
        meta = checkpoint.get('meta', {}).get('dataset_meta') or {}
        check_same_classes(
            {f'checkpoint {runner._load_from}': meta.get('classes'), **_classes_of_data(runner)}
        )


def _classes_of_data(runner: Runner) -> dict[str, list[str] | None]:
    """The classes of the data of loops that are built, as they are when a run starts."""
    loops = dict(training=runner._train_loop, validation=runner._val_loop, test=runner._test_loop)
    return {
        f'the {name} data': getattr(loop.dataloader.dataset, 'metainfo', {}).get('classes')
        for name, loop in loops.items()
        if isinstance(loop, BaseLoop)
    }
