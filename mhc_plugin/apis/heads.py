"""A trained model as files, one per class, and files as a model."""

import copy
import hashlib
import inspect
import json
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.models.heads import MultiLabelLinearClsHead
from torch import nn

from mhc_plugin.datasets.class_lists import shown
from mhc_plugin.models import BaseMultiHeadClsHead
from mhc_plugin.models.backbone_weights import load_backbone
from mhc_plugin.models.heads.separate import JOINT
from mhc_plugin.models.layers.fused import view_of
from mhc_plugin.utils.tensor_hash import hash_weights

from .class_choice import configured_classes, say_what_couples, select_classes
from .config import load_config
from .environment import replace_pretrained
from .head_data import hash_training_data, score_heads
from .head_files import HeadFile, head_paths, read_head, write_card
from .model import load_model
from .train import train

# ---- a model as files


def extract_heads(
    config: Config | str | os.PathLike,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    classes: Sequence[str] | None = None,
    scores: dict[str, dict[str, float]] | None = None,
    license: str | None = None,
) -> list[Path]:
    """Write every class's head to a file of its own, and a card of them all.

    Args:
        config (Config | str | PathLike): A config, or what :func:`load_config` takes.
        checkpoint (str | PathLike): Trained with it.
        out (str | PathLike): A folder; other files in it stay.
        classes (Sequence[str], optional): Those classes only. Defaults to all.
        scores (dict, optional): For every class, what it scored. Defaults to None, which means its
            average precision on the config's test data; ``{}`` leaves it out.
        license (str, optional): Of the weights, for the card; by default what it says, or
            ``unknown``.

    Returns:
        list[Path]: The files.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If several classes share a head, or a class is unknown.
    """
    cfg = _as_config(config)
    model = load_model(cfg, checkpoint, device='cpu')
    names = _class_names(cfg, model)
    wanted = names if classes is None else list(classes)
    for name in wanted:
        if name not in names:
            raise ValueError(f'There is no class {name!r} in {checkpoint}, but {names[:20]}.')
    meta = model._dataset_meta or {}
    thresholds = meta.get('thresholds')
    backbone, preprocessing = hash_weights(model.backbone), preprocessing_hash(cfg)
    labels = hash_training_data(cfg)
    settings, views = head_settings(cfg, model), _views(model)
    say_what_couples(cfg, wanted)
    if scores is None:
        scores = score_heads(cfg, model, views, names)
    paths = []
    for index, name in enumerate(names):
        if name not in wanted:
            continue
        head = HeadFile(
            name,
            settings[index],
            backbone,
            preprocessing,
            None if thresholds is None else float(thresholds[index]),
            dict(scores.get(name, {})),
            labels.get(name),
            dict(views[index].state_dict()),
        )
        paths.append(head.save(out))
    write_card(out, license)
    return paths


def preprocessing_hash(cfg: Config) -> str:
    """SHA-256 of a config's test pipeline, without what packs, and of its data preprocessor."""
    dataset = (cfg.get('test_dataloader') or cfg.val_dataloader).dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    pipeline = [dict(step) for step in dataset['pipeline']]
    pipeline = [step for step in pipeline if step['type'].split('.')[-1] != 'PackInputs']
    own = {**(cfg.get('data_preprocessor') or {}), **(cfg.model.get('data_preprocessor') or {})}
    used = {name: own.get(name) for name in ('mean', 'std', 'to_rgb')}
    text = json.dumps([pipeline, used], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def head_settings(cfg: Config, model: nn.Module) -> list[dict]:
    """For every class, type and arguments of its head and what of the features it reads.

    Raises:
        ValueError: If several classes share a head.
    """
    head, given = model.head, dict(cfg.model.head)
    kind = type(head)
    if isinstance(head, BaseMultiHeadClsHead):
        shared = next((group for group in head.head_groups if len(group) > 1), None)
        if shared is not None:
            raise ValueError(
                f'{len(shared)} classes share a head of `{kind.__name__}`, so that none of them '
                'can be a file of its own.'
            )
        inputs = {
            group[0]: [[stage, part.start, part.stop] for stage, part in feeds]
            for group, feeds in zip(head.head_groups, head.feeds.heads)
        }
    elif kind is MultiLabelLinearClsHead:
        inputs = [[[-1, 0, head.fc.in_features]]] * head.fc.out_features
    else:
        raise ValueError(
            f'Expected a head of this package or `MultiLabelLinearClsHead`, but got '
            f'`{kind.__name__}`, whose classes cannot be told apart.'
        )
    settings = dict(type=kind.__name__)
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name not in JOINT and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            value = given.get(name, parameter.default)
            settings[name] = None if value is parameter.empty else value
    neck = cfg.model.get('neck')
    settings['neck'] = None if neck is None else dict(neck)
    # As JSON gives it back.
    return [
        json.loads(json.dumps(dict(settings, inputs=inputs[c]), default=str))
        for c in range(len(inputs))
    ]


def _views(model: nn.Module) -> list[nn.Module]:
    """Every class's head as a module whose tensors are views of the model's."""
    head = model.head
    if isinstance(head, BaseMultiHeadClsHead):
        views = {group[0]: head.head_view(i) for i, group in enumerate(head.head_groups)}
        return [views[c] for c in range(head.num_classes)]
    views = []
    for c in range(head.fc.out_features):
        layer = nn.Linear(head.fc.in_features, 1, device='meta')
        layer.weight = view_of(head.fc.weight, slice(c, c + 1))
        layer.bias = view_of(head.fc.bias, slice(c, c + 1))
        views.append(layer)
    return views


def _class_names(cfg: Config, model: nn.Module) -> list[str]:
    names = (model._dataset_meta or {}).get('classes') or configured_classes(cfg)
    return [str(name) for name in names]


# ---- files as a model


def assemble_heads(
    config: Config | str | os.PathLike,
    files: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    backbone_weights: str | os.PathLike | None = None,
) -> Path:
    """Make a checkpoint of heads, in the order of the config's classes.

    Where there are not files for all of them, the config of those that there are is written beside
    the checkpoint, with the suffix ``.py``. Nothing is written unless every file fits.

    Args:
        config (Config | str | PathLike): A config, or what :func:`load_config` takes.
        files (Sequence[str | PathLike]): Files, or folders of files.
        out (str | PathLike): The checkpoint.
        backbone_weights (str | PathLike, optional): The backbone, where it is not the published
            one.

    Returns:
        Path: The checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or does not fit, or a class is there twice.
    """
    cfg, model, heads = _fitted(config, files, backbone_weights)
    _put(model, heads)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        dict(meta=dict(dataset_meta=model._dataset_meta), state_dict=model.state_dict()), out
    )
    if len(heads) < _number_configured(config):
        cfg.dump(str(out.with_suffix('.py')))
    return out


def load_heads(
    config: Config | str | os.PathLike,
    files: Sequence[str | os.PathLike],
    backbone_weights: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """The model of :func:`assemble_heads`, as :func:`load_model` gives it.

    Args:
        config, files, backbone_weights: See :func:`assemble_heads`.
        device (str | torch.device, optional): Defaults to CUDA where there is any, else CPU.
    """
    _, model, heads = _fitted(config, files, backbone_weights)
    _put(model, heads)
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))


def _put(model: nn.Module, heads: list[HeadFile]) -> None:
    for view, head in zip(_views(model), heads):
        view.load_state_dict(head.tensors)
    meta = dict(classes=tuple(head.class_name for head in heads))
    without = [head.class_name for head in heads if head.threshold is None]
    if len(without) < len(heads):
        default = 0.5 if model.head.thr is None else model.head.thr
        meta['thresholds'] = [default if h.threshold is None else h.threshold for h in heads]
        if without:
            text = f'{shown(without)} came without a threshold of their own: {default} is taken.'
            print_log(text, 'current', logging.WARNING)
    model._dataset_meta = meta


def _as_config(config: Config | str | os.PathLike) -> Config:
    return copy.deepcopy(config) if isinstance(config, Config) else load_config(config)


def _number_configured(config: Config | str | os.PathLike) -> int:
    return len(configured_classes(_as_config(config)))


def verify_heads(
    config: Config | str | os.PathLike,
    files: Sequence[str | os.PathLike],
    backbone_weights: str | os.PathLike | None = None,
) -> list[HeadFile]:
    """Read files and hold them against a config, as :func:`assemble_heads` does.

    Returns:
        list[HeadFile]: The heads, in the order of the config's classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or does not fit, or a class is there twice.
    """
    return _fitted(config, files, backbone_weights)[2]


def _fitted(
    config: Config | str | os.PathLike,
    files: Sequence[str | os.PathLike],
    backbone_weights: str | os.PathLike | None,
) -> tuple[Config, nn.Module, list[HeadFile]]:
    cfg = _as_config(config)
    paths = [p for f in files for p in (head_paths(f) if Path(f).is_dir() else [Path(f)])]
    if not paths:
        raise ValueError('Expected at least one file of a head, but got none.')
    found: dict[str, tuple[Path, HeadFile]] = {}
    known = configured_classes(cfg)
    for path in paths:
        head = read_head(path)
        if head.class_name in found:
            raise ValueError(
                f'The class {head.class_name!r} is there twice: {found[head.class_name][0]} and '
                f'{path}.'
            )
        if head.class_name not in known:
            raise ValueError(f'{path} is of class {head.class_name!r}, which the config has not.')
        found[head.class_name] = path, head
    names = [name for name in known if name in found]
    if len(names) < len(known):
        select_classes(cfg, names)
    weights = backbone_weights or cfg.get('backbone_weights')
    if weights:
        replace_pretrained(cfg, weights)
    model = load_model(cfg, device='cpu')
    if weights and weights != 'none':
        load_backbone(model, weights)
    backbone, preprocessing = hash_weights(model.backbone), preprocessing_hash(cfg)
    for name, settings, view in zip(names, head_settings(cfg, model), _views(model)):
        path, head = found[name]
        if head.backbone != backbone:
            raise ValueError(
                f'{path} was trained on another backbone: {head.backbone[:12]}, and not '
                f'{backbone[:12]} as in this config.'
            )
        if head.preprocessing != preprocessing:
            raise ValueError(
                f'{path} was trained on images prepared otherwise: {head.preprocessing[:12]}, and '
                f'not {preprocessing[:12]} as in this config.'
            )
        if head.head != settings:
            raise ValueError(f'{path} is another kind of head: {_difference(head.head, settings)}.')
        own = {key: (x.dtype, x.shape) for key, x in view.state_dict().items()}
        if own != {key: (x.dtype, x.shape) for key, x in head.tensors.items()}:
            raise ValueError(f'{path} does not hold the tensors of its kind of head.')
    return cfg, model, [found[name][1] for name in names]


def _difference(a: dict, b: dict) -> str:
    name = next(name for name in sorted({*a, *b}) if a.get(name) != b.get(name))
    return f'its `{name}` is {a.get(name)!r}, and not {b.get(name)!r} as in this config'


# ---- files in a folder


def add_head(
    config: Config | str | os.PathLike,
    folder: str | os.PathLike,
    class_name: str,
    work_dir: str | os.PathLike | None = None,
    **arguments: Any,
) -> Path:
    """Train one class on stored features and put its file beside the others.

    Args:
        config (Config | str | PathLike): A config with this class among others.
        folder (str | PathLike): The folder of files, which have to fit the config.
        class_name (str): The class.
        work_dir (str | PathLike, optional): Folder of the training. Defaults to a temporary one.
        **arguments: Others of :func:`train`, such as ``optimum``.

    Returns:
        Path: The file.

    Raises:
        ValueError: If the class has a file, or what is there does not fit the config.
    """
    cfg = _as_config(config)
    present = head_paths(folder) if Path(folder).is_dir() else []
    if present:
        heads = verify_heads(cfg, present, arguments.get('backbone_weights'))
        if class_name in {head.class_name for head in heads}:
            raise ValueError(f'There is a head of {class_name!r} in {folder}; remove it first.')
    arguments.setdefault('feature_cache', {})
    with tempfile.TemporaryDirectory() as temporary:
        result = train(cfg, work_dir=work_dir or temporary, classes=[class_name], **arguments)
        select_classes(cfg, [class_name])
        # Of one class the mean is its own; on stored features, unlike a test of the checkpoint.
        score = result.metrics.get('multi-label/mAP', math.nan)
        scores = {} if math.isnan(score) else {class_name: dict(AP=round(score, 2))}
        (path,) = extract_heads(cfg, result.checkpoint, folder, scores=scores)
    return path
