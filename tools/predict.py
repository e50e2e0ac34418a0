"""Predict the labels of images."""

import argparse
import sys

from rich.console import Console

from mhc_plugin.apis import MultiLabelInferencer, load_config
from mhc_plugin.apis.prediction_files import check_format, predictions_table, write_predictions
from mhc_plugin.cli.arguments import one_sentence_errors


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
    parser.add_argument('--out', help='file to write to, .json or .csv; else a table is printed')
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


def main() -> None:
    args = parse_args()
    thr = args.thr[0] if args.thr and len(args.thr) == 1 else args.thr
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
        results = inferencer(
            args.inputs, batch_size=args.batch_size, maps=args.maps or False, show_dir=args.show_dir
        )
        if args.out:
            write_predictions(results, args.out, inferencer.classes)
        else:
            # A pipe has no width to fit into.
            width = None if sys.stdout.isatty() else 1000
            Console(width=width).print(predictions_table(results))
    unread = [result for result in results if 'error' in result]
    if unread and args.out:
        for result in unread:
            print(f'Left out: {result["error"]}', file=sys.stderr)
    if len(unread) == len(results):
        sys.exit(1)


if __name__ == '__main__':
    main()
