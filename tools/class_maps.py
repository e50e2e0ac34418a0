"""Draw where the score of every class comes from: a panel per image."""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rich.console import Console

from mhc_plugin.apis import MultiLabelInferencer, draw_class_maps, load_config
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.datasets.images import dataset_with_test_pipeline, list_images
from mhc_plugin.utils.logs import progress


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description='Draw class maps. The predicted classes come first; one scale holds for all '
        'classes of an image.',
    )
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument(
        'checkpoint', help="a file or URL, or 'none': the model as training starts with it"
    )
    parser.add_argument('inputs', nargs='*', help='images, folders or glob patterns')
    parser.add_argument(
        '--dataset',
        choices=['train', 'val', 'test'],
        help="the config's data set in the place of images; the truth is shown, too",
    )
    parser.add_argument(
        '--num', type=int, default=16, help='how many of --dataset, from the first; 16 by default'
    )
    parser.add_argument('--out-dir', default='class_maps', help='folder of the panels')
    parser.add_argument(
        '--method',
        default='inherent',
        help="'inherent' or a method of pytorch_grad_cam, such as GradCAM",
    )
    parser.add_argument('--classes', nargs='+', help='names or indices of classes; all by default')
    parser.add_argument(
        '--compare',
        metavar='CHECKPOINT',
        help="another checkpoint, or 'none', beside it: before and after, or two models",
    )
    parser.add_argument(
        '--compare-config', metavar='CONFIG', help='the config of --compare, if it is another one'
    )
    parser.add_argument('--npz', action='store_true', help='write the raw maps, too')
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument('--thr', type=float, help='scores from here on count as predicted')
    rule.add_argument('--topk', type=int, help='so many highest scores count as predicted')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--device', help='CUDA where there is any, else CPU')
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    args = parser.parse_args()
    if bool(args.inputs) == bool(args.dataset):
        parser.error('give either images, folders or patterns, or --dataset')
    return args


def load(config: str, checkpoint: str, device: str | None) -> MultiLabelInferencer:
    return MultiLabelInferencer(
        load_config(config), None if checkpoint == 'none' else checkpoint, device
    )


def titles(asked: list[tuple[str, str]]) -> list[str]:
    """Name models by what their configs, checkpoints or folders differ in."""
    configs = [Path(config).stem for config, _ in asked]
    checkpoints = ['untrained' if path == 'none' else Path(path).stem for _, path in asked]
    folders = [Path(path).parent.name for _, path in asked]
    if len(asked) > 1 and len(set(configs)) == len(asked):
        return differing_parts(configs)
    if len(set(checkpoints)) == len(asked):
        return checkpoints
    if len(set(folders)) == len(asked):
        return differing_parts(folders)
    return ['first', 'second']


def differing_parts(names: list[str]) -> list[str]:
    """Leave out the words that all names begin or end with."""
    words = [name.split('_') for name in names]
    for end in (0, -1):
        while all(len(parts) > 1 and parts[end] == words[0][end] for parts in words):
            for parts in words:
                del parts[end]
    return ['_'.join(parts) for parts in words]


def load_all(args: argparse.Namespace) -> dict[str, MultiLabelInferencer]:
    """The models by the names that they are shown with."""
    asked = [(args.config, args.checkpoint)]
    if args.compare:
        asked.append((args.compare_config or args.config, args.compare))
    return {name: load(*pair, args.device) for name, pair in zip(titles(asked), asked)}


def readable(inferencer: MultiLabelInferencer, images: list) -> Iterator[dict]:
    """Images as the pipeline packs them; one that cannot be read is reported."""
    for image in images:
        try:
            yield inferencer.pipeline(image)
        except (OSError, ValueError) as error:
            Console(stderr=True).print(f'Left out: {error}', markup=False, soft_wrap=True)


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        inferencers = load_all(args)
        first = next(iter(inferencers.values()))
        if args.dataset:
            dataset = dataset_with_test_pipeline(first.config, args.dataset)
            total = min(args.num, len(dataset))
            items = (dataset[index] for index in islice(range(len(dataset)), total))
        else:
            images = list_images(args.inputs)
            total = len(images)
            items = readable(first, images)
        classes = args.classes and [
            int(c) if c.isdigit() and c not in first.classes else c for c in args.classes
        ]
        pictures = draw_class_maps(
            inferencers,
            items,
            args.out_dir,
            method=args.method,
            classes=classes,
            thr=args.thr,
            topk=args.topk,
            npz=args.npz,
            batch_size=args.batch_size,
        )
        count = sum(1 for _ in progress(pictures, 'Panels', total))
        print(f'{count} panels in {args.out_dir}')
    if count == 0:
        sys.exit(1)


if __name__ == '__main__':
    main()
