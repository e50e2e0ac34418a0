"""Predict the labels of images."""

import argparse
import sys
from collections.abc import Iterable, Iterator

from mhc_plugin.apis import MultiLabelInferencer, load_config
from mhc_plugin.apis.prediction_files import check_format, prediction_line, write_predictions
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.datasets.images import list_images
from mhc_plugin.utils.logs import progress


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description='Predict labels: by the thresholds that are stored with the checkpoint, if '
        "there are any, else by the head's own threshold or number of labels.",
    )
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument('checkpoint', help='a file or URL')
    parser.add_argument('inputs', nargs='+', help='images, folders or glob patterns')
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument(
        '--thr',
        type=float,
        nargs='+',
        help='scores from here on are predicted; one, or one per class',
    )
    rule.add_argument('--topk', type=int, help='so many highest scores are predicted')
    parser.add_argument(
        '--out', help='file to write to, .json or .csv; else a line an image is printed'
    )
    parser.add_argument('--show-dir', help='folder for pictures with their labels')
    parser.add_argument(
        '--maps',
        nargs='?',
        const='inherent',
        metavar='METHOD',
        help='draw class maps into the pictures of --show-dir: inherent ones, or those of a '
        'method of pytorch_grad_cam',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over the config's test-time augmentation, or the image and its mirror image",
    )
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--device', help='CUDA where there is any, else CPU')
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    args = parser.parse_args()
    if args.maps and not args.show_dir:
        parser.error('--maps needs --show-dir, the folder to draw into')
    return args


def note_failures(results: Iterable[dict], failures: list[bool], aloud: bool) -> Iterator[dict]:
    """Hand results on, and note for each whether its image could not be read."""
    for result in results:
        failures.append('error' in result)
        if failures[-1] and aloud:
            print(f'Left out: {result["error"]}', file=sys.stderr)
        yield result


def main() -> None:
    args = parse_args()
    thr = args.thr[0] if args.thr and len(args.thr) == 1 else args.thr
    failures: list[bool] = []
    with one_sentence_errors(args.traceback):
        if args.out:
            check_format(args.out)
        inferencer = MultiLabelInferencer(
            load_config(args.config),
            args.checkpoint,
            args.device,
            thr=thr,
            topk=args.topk,
            tta=args.tta,
        )
        images = list_images(args.inputs)
        results = inferencer.predict_each(
            images, batch_size=args.batch_size, maps=args.maps or False, show_dir=args.show_dir
        )
        results = note_failures(results, failures, aloud=bool(args.out))
        if args.out:
            results = progress(results, 'Inference', len(images))
            write_predictions(results, args.out, inferencer.classes)
        else:
            for result in results:
                print(prediction_line(result), flush=True)
    if all(failures):
        sys.exit(1)


if __name__ == '__main__':
    main()
