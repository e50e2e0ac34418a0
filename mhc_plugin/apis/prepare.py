"""Write a chosen subset, composites or converted labels once, for other tools or places."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from PIL import Image
from rich.progress import track

from mhc_plugin import compat
from mhc_plugin.datasets import OpenImagesSubset, SplicedDataset, VOCSubset
from mhc_plugin.datasets.annotation_files import (
    describe_file,
    new_file,
    new_folder,
    write_annotations,
    write_label_csv,
    write_lines,
)
from mhc_plugin.datasets.own_images.convert import read_export
from mhc_plugin.datasets.sample_table import sample_entries
from mhc_plugin.datasets.subset import chosen_classes, print_counts
from mhc_plugin.functional.checks import check_choice
from mhc_plugin.version import __version__

from .config import load_config

_CARD = 'card.json'


def prepare_voc(
    out: str | os.PathLike,
    data_root: str | Sequence[str],
    splits: Sequence[str] = ('trainval', 'test'),
    classes: Sequence[str] | None = None,
    num_classes: int = 10,
    difficult: str = 'unknown',
    **choice: Any,
) -> Path:
    """Write a subset of VOC as OpenMMLab's multi-label JSON, one file per split, and a card.

    Args:
        out (str | PathLike): The folder to make.
        data_root (str | Sequence[str]): One or several VOC roots.
        splits (Sequence[str]): The splits; classes are chosen by the first.
        classes (Sequence[str], optional): Names of the classes. Defaults to None, which chooses
            ``num_classes`` of VOC's twenty, see :func:`choose_classes`.
        num_classes (int): How many to choose. Defaults to 10.
        difficult (str): See :class:`VOCSubset`. Defaults to 'unknown'.
        **choice: ``min_labels``, ``max_labels``, ``max_images`` and ``seed`` of
            :func:`choose_images`; by default 2, 7, 10,000 and 0.

    Returns:
        Path: The folder.
    """
    common = dict(data_root=data_root, difficult=difficult)
    return _prepare(out, VOCSubset, common, splits, classes, num_classes, choice)


def prepare_openimages(
    out: str | os.PathLike,
    data_root: str,
    splits: Sequence[str] = ('train', 'test'),
    classes: Sequence[str] | None = None,
    num_classes: int = 10,
    **options: Any,
) -> Path:
    """Write a subset of OpenImages as :func:`prepare_voc` does, and the lists of its images.

    ``<split>_images.txt`` has lines ``<split>/<ImageID>``, which OpenImages' downloader takes.

    Args:
        out (str | PathLike): The folder to make.
        data_root (str): Folder of the CSV files.
        splits (Sequence[str]): The splits; classes are chosen by the first.
        classes (Sequence[str], optional): Display names or MIDs. Defaults to None, which chooses
            ``num_classes`` of all that the file of classes names.
        num_classes (int): How many to choose. Defaults to 10.
        **options: ``min_labels``, ``max_labels``, ``max_images`` and ``seed`` as for
            :func:`prepare_voc`, and arguments of :class:`OpenImagesSubset`, among them
            ``require_images=False`` to choose before anything is downloaded.

    Returns:
        Path: The folder.
    """
    names = ('min_labels', 'max_labels', 'max_images', 'seed')
    choice = {name: options.pop(name) for name in names if name in options}
    common = dict(data_root=data_root, **options)
    return _prepare(out, OpenImagesSubset, common, splits, classes, num_classes, choice)


def prepare_splices(
    out: str | os.PathLike,
    config: str | os.PathLike,
    parts: Sequence[str] = ('train', 'test'),
    cfg_options: dict[str, Any] | None = None,
) -> Path:
    """Write composites as PNG files with their labels as OpenMMLab's multi-label JSON, and a card.

    Args:
        out (str | PathLike): The folder to make.
        config (str | PathLike): A config whose datasets are :class:`SplicedDataset`, or the name
            of one of our sets: combined0, combined1, digits.
        parts (Sequence[str]): Which of 'train', 'val' and 'test'. Defaults to train and test.
        cfg_options (dict, optional): Settings that override the config. Defaults to None.

    Returns:
        Path: The folder.

    Raises:
        ValueError: If a part is not there or is no spliced dataset.
    """
    cfg = load_config(_splice_config(config), cfg_options)
    datasets = {part: _spliced_part(cfg, part) for part in parts}
    with new_folder(out) as folder:
        card = _card('splice', config=os.fspath(config), parts={})
        for part, dataset in datasets.items():
            card['parts'][part] = _write_splices(folder, part, dataset)
        _write_card(folder, card)
    return Path(out)


def convert_labels(
    export: str | os.PathLike,
    out: str | os.PathLike,
    classes: Sequence[str] | None = None,
    choices: str | None = None,
) -> Path:
    """Write labels that an annotation tool exported as :class:`JSONMultiLabelDataset` or
    :class:`CSVMultiLabelDataset` reads them.

    Args:
        export (str | PathLike): See :func:`read_export`.
        out (str | PathLike): The file to write, which ends in ``.json`` or ``.csv``.
        classes (Sequence[str], optional): The classes to take, in their order. Defaults to None:
            all of the export.
        choices (str, optional): The field of choices, where Label Studio has several.

    Returns:
        Path: The file.

    Raises:
        FileExistsError: If there is such a file already.
        AnnotationError: If the export cannot be read.
        ValueError: If an argument does not fit, or if CSV cannot hold a class's name.
    """
    out = Path(out)
    check_choice('out', out.suffix, ('.json', '.csv'))
    found = read_export(export, classes, choices)
    entries = found.entries(found.classes)
    with new_file(out) as path:
        if out.suffix == '.json':
            write_annotations(path, found.classes, entries)
        else:
            write_label_csv(path, found.classes, entries)
    counts = np.bincount(
        [label for entry in entries for label in entry['gt_label']], minlength=len(found.classes)
    )
    unknown = sum(len(entry['unknown_label']) for entry in entries)
    print(f'{found.tool}: {len(entries):,} images, {len(found.classes)} classes')
    print(', '.join(f'{name} {count:,}' for name, count in zip(found.classes, counts)))
    if unknown:
        print(f'{unknown:,} labels are unknown, since annotations of an image disagree')
    return out


def _prepare(
    out: str | os.PathLike,
    dataset_type: type,
    common: dict,
    splits: Sequence[str],
    classes: Sequence[str] | None,
    num_classes: int,
    choice: dict,
) -> Path:
    choice = dict(dict(min_labels=2, max_labels=7, max_images=10_000, seed=0), **choice)
    with new_folder(out) as folder:
        chosen_by = None
        if classes is None:
            chosen_by = dict(split=splits[0], num_classes=num_classes)
            classes = chosen_classes(dataset_type, dict(chosen_by, **choice), **common)
        card = _card(
            dataset_type.__name__,
            settings=dict(common, **choice),
            classes=list(classes),
            classes_chosen_by=chosen_by,
            splits={},
        )
        for split in splits:
            dataset = dataset_type(split=split, classes=classes, **common, **choice)
            card['splits'][split] = _write_subset(folder, split, dataset)
        _write_card(folder, card)
    return Path(out)


def _write_subset(folder: Path, split: str, dataset: VOCSubset | OpenImagesSubset) -> dict:
    """Write one split and show what it holds; what the card says of it comes back."""
    samples = dataset.data_list
    print_counts(dataset.counts_before, dataset.counts_after, dataset.CLASSES, split)
    root = os.path.abspath(os.path.commonpath(samples.folders))
    path = folder / f'{split}.json'
    write_annotations(path, dataset.CLASSES, sample_entries(samples, root))
    if isinstance(dataset, OpenImagesSubset):
        write_lines(
            folder / f'{split}_images.txt', (f'{split}/{name.decode()}' for name in samples.names)
        )
    return dict(
        file=_described(path),
        images_below=root,
        before=dataset.counts_before.to_dict(dataset.CLASSES),
        after=dataset.counts_after.to_dict(dataset.CLASSES),
        left_out=dataset.left_out.counts,
        sources=[describe_file(source) for source in dataset.sources],
    )


def _splice_config(config: str | os.PathLike) -> str:
    name = os.fspath(config)
    own = compat.config_root() / 'configs' / '_base_' / 'datasets' / f'{name}.py'
    return str(own) if own.is_file() and not Path(name).is_file() else name


def _spliced_part(cfg: Config, part: str) -> SplicedDataset:
    loader = cfg.get(f'{part}_dataloader')
    if loader is None:
        raise ValueError(
            f'Expected the config to have a {part}_dataloader, but {cfg.filename} has none.'
        )
    # The tiles put together, and nothing of what training does to them.
    dataset = DATASETS.build(dict(loader.dataset, pipeline=[dict(type='ComposeTiles')]))
    if not isinstance(dataset, SplicedDataset):
        raise ValueError(
            f'Expected the dataset of {part} to be a SplicedDataset, but it is a '
            f'{type(dataset).__name__}.'
        )
    return dataset


def _write_splices(folder: Path, part: str, dataset: SplicedDataset) -> dict:
    (folder / part).mkdir()
    entries, digest = [], hashlib.sha256()
    for i in track(range(len(dataset)), f'Writing {part}', transient=True):
        results = dataset[i]
        name = f'{part}/{i:06d}.png'
        Image.fromarray(results['img'][..., ::-1]).save(folder / name)
        digest.update(results['img'].tobytes())
        entries.append(
            dict(
                img_path=name,
                gt_label=[int(label) for label in results['gt_label']],
                gt_cells=np.asarray(results['gt_cells']).tolist(),
            )
        )
    path = folder / f'{part}.json'
    write_annotations(path, dataset.CLASSES, entries)
    labels = np.concatenate([entry['gt_label'] for entry in entries])
    counts = np.bincount(labels, minlength=len(dataset.CLASSES)).tolist()
    print(f'{part}: {len(entries):,} composites of {len(dataset.CLASSES)} classes')
    return dict(
        file=_described(path),
        images=len(entries),
        classes=dict(zip(dataset.CLASSES, counts)),
        grid=list(dataset.grid),
        tile_size=dataset.tile_size,
        seed=dataset.seed,
        source=dict(dataset.source),
        pixels_sha256=digest.hexdigest(),
    )


def _card(kind: str, **contents: Any) -> dict:
    return dict(dataset=kind, made_by=f'mhc_plugin {__version__}', **contents)


def _described(path: Path) -> dict:
    return dict(describe_file(path), path=path.name)


def _write_card(folder: Path, card: dict) -> None:
    write_lines(folder / _CARD, [json.dumps(card, indent=2, default=os.fspath)])
