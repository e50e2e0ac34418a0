"""Some classes of a config by themselves, and what keeps them from being so."""

import copy
import difflib
import logging
from collections.abc import Iterator, Sequence

from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS, MODELS

from mhc_plugin.datasets.class_lists import shown
from mhc_plugin.datasets.targets import MultiLabelTargets
from mhc_plugin.models import BaseMultiHeadClsHead, ConvClsHead, FrozenBackboneClassifier

# Optimizers that step every weight by its own gradients alone.
ELEMENTWISE = {
    'SGD',
    'ASGD',
    'Adadelta',
    'Adagrad',
    'Adam',
    'AdamW',
    'Adamax',
    'Lion',
    'NAdam',
    'RAdam',
    'RMSprop',
    'Rprop',
}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def configured_classes(cfg: Config) -> list[str]:
    """The classes of a config's training data, in the order of their heads."""
    dataset = next(_innermost(cfg.train_dataloader.dataset))
    classes = dataset.get('keep_classes') or dataset.get('classes')
    if classes is None or isinstance(classes, str):
        classes = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset)).metainfo['classes']
    return [str(name) for name in classes]


def select_classes(cfg: Config, classes: Sequence[str]) -> list[str]:
    """Leave of a config the heads, labels and scores of some classes.

    Images stay as they are, so that stored features are shared with all other classes. Heads that
    can be are trained to the same bits in any company (``separate=True``).

    Args:
        cfg (Config): Changed in place.
        classes (Sequence[str]): Their names, in any order.

    Returns:
        list[str]: The names in the order of the config.

    Raises:
        ValueError: If a class is unknown or named twice, or heads cannot be taken apart.
    """
    known = configured_classes(cfg)
    for name in classes:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f'did you mean {" or ".join(close)}?' if close else f'there are {known[:20]}.'
            raise ValueError(f'There is no class {name!r} in this config; {hint}')
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f'Expected classes, each named once, but got {list(classes)}.')
    indices = [index for index, name in enumerate(known) if name in set(classes)]
    chosen = [known[index] for index in indices]
    _select_heads(cfg.model.head, indices)
    decay = cfg.train_cfg.get('weight_decay')
    if isinstance(decay, (list, tuple)) and len(decay) == len(known):
        cfg.train_cfg.weight_decay = [decay[index] for index in indices]
    for loader in LOADERS:
        if cfg.get(loader) is None:
            continue
        for dataset in _innermost(cfg[loader].dataset):
            if not issubclass(DATASETS.get(dataset['type']), MultiLabelTargets):
                raise ValueError(
                    f'Expected a data set of this package to train some of its classes, but '
                    f'got `{dataset["type"]}`. List the classes in its config instead.'
                )
            dataset['keep_classes'] = chosen
    for evaluator in ('val_evaluator', 'test_evaluator'):
        if cfg.get(evaluator) is not None:
            cfg[evaluator] = list(_fitting_metrics(cfg[evaluator], len(chosen)))
    return chosen


def say_what_couples(cfg: Config, classes: Sequence[str]) -> None:
    """Warn, in a sentence for each reason, that heads are not what they are by themselves."""
    for reason in what_couples(cfg):
        who = f'The heads of {shown(classes)} are not what they would be in other company'
        print_log(f'{who}: {reason}.', 'current', logging.WARNING)


def what_couples(cfg: Config) -> list[str]:
    """What of a config makes a class's head depend on other classes, a clause each."""
    head, reasons = cfg.model.head, []
    kind, model = MODELS.get(head['type']), MODELS.get(cfg.model['type'])
    if not issubclass(kind, BaseMultiHeadClsHead):
        reasons.append(f"`{kind.__name__}` draws and computes all classes' weights as one")
    elif head.get('connection') == 'channels':
        reasons.append("with `connection='channels'` a head's channels depend on their number")
    elif not head.get('separate'):
        reasons.append('without `separate=True` all are computed in one product, to rounding')
    if not issubclass(model, FrozenBackboneClassifier):
        reasons.append(f'`{model.__name__}` may train the backbone, which all classes share')
    if (head.get('loss') or {}).get('head_reduction') == 'mean':
        reasons.append("`head_reduction='mean'` divides every class's loss by their number")
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('clip_grad'):
        reasons.append('`clip_grad` scales all gradients by their common norm')
    optimizer = (wrapper.get('optimizer') or {}).get('type')
    if isinstance(optimizer, str) and optimizer not in ELEMENTWISE:
        reasons.append(f'`{optimizer}` is not known to step every weight by itself')
    if wrapper.get('type') == 'AmpOptimWrapper' and wrapper.get('loss_scale') == 'dynamic':
        reasons.append('the dynamic `loss_scale` leaves out a step of all where one overflows')
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if 'Plateau' in str(scheduler.get('type')):
            reasons.append(f'`{scheduler["type"]}` follows one score of all heads')
    hooks = {**(cfg.get('default_hooks') or {})}
    if (hooks.get('checkpoint') or {}).get('save_best'):
        reasons.append('`save_best` chooses the epoch of all heads by one score')
    for hook in [*hooks.values(), *(cfg.get('custom_hooks') or [])]:
        if 'EarlyStopping' in str((hook or {}).get('type')):
            reasons.append(f'`{hook["type"]}` ends the training of all heads by one score')
    if 'ClassBalancedDataset' in str(cfg.train_dataloader.dataset.get('type')):
        reasons.append('`ClassBalancedDataset` repeats images by the labels of all classes')
    if cfg.train_cfg.get('weight_decay') == 'cv':
        reasons.append(
            'the weight decay is chosen by the mean over classes (`cv-per-class` is not)'
        )
    return reasons


def _innermost(dataset: dict) -> Iterator[dict]:
    """The configs of data sets that no wrapper holds."""
    if 'dataset' in dataset:
        yield from _innermost(dataset['dataset'])
    elif 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from _innermost(part)
    else:
        yield dataset


def _select_heads(head: dict, indices: list[int]) -> None:
    kind = MODELS.get(head['type'])
    reason = None
    if issubclass(kind, ConvClsHead):
        reason = f'`{kind.__name__}` is one head, whose layers all classes share'
    elif head.get('head_groups'):
        reason = 'with `head_groups` several classes share a head'
    elif head.get('connection') == 'channels' and len(indices) < head['num_classes']:
        reason = "with `connection='channels'` a head's channels depend on the number of heads"
    if reason is not None:
        raise ValueError(f'These classes cannot be trained by themselves: {reason}.')
    head['num_classes'] = len(indices)
    if issubclass(kind, BaseMultiHeadClsHead) and head.get('connection') != 'channels':
        head['separate'] = True
    if head.get('head_stages'):
        head['head_stages'] = [head['head_stages'][index] for index in indices]
    if (head.get('topk') or 0) > len(indices):
        head['topk'] = len(indices)
    loss = head.get('loss') or {}
    for name in ('loss_weight', 'pos_weight', 'class_names'):
        if isinstance(loss.get(name), (list, tuple)):
            loss[name] = [loss[name][index] for index in indices]


def _fitting_metrics(evaluator: dict | list, num_classes: int) -> Iterator[dict]:
    """Metrics without the top k that so few classes have not got."""
    for metric in [evaluator] if isinstance(evaluator, dict) else evaluator:
        if metric.get('topk') is None:
            yield metric
            continue
        given = metric['topk']
        topk = [k for k in ([given] if isinstance(given, int) else given) if k < num_classes]
        if topk:
            yield {**metric, 'topk': topk if not isinstance(given, int) else topk[0]}
