"""Test a checkpoint. Options are those of MMPretrain's own tool."""

import argparse

from mhc_plugin.apis import choose_thresholds, load_config, test
from mhc_plugin.cli.arguments import add_common_arguments, one_sentence_errors, parse_args


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, description='Test (and evaluate) a model')
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument('checkpoint', help='a file or URL')
    parser.add_argument('--work-dir', help='folder of logs')
    parser.add_argument('--out', help='file to write predictions (.pkl) or metrics to')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what to write to --out; predictions by default',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 on CPU'
    )
    parser.add_argument('--show-dir', help='folder for images with predictions drawn on them')
    parser.add_argument('--show', action='store_true', help='show them in a window')
    parser.add_argument('--interval', type=int, default=1, help='draw one of so many images')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds to show an image in the window'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over the config's test-time augmentation, or the image and its mirror image",
    )
    parser.add_argument(
        '--maps',
        nargs='?',
        const='inherent',
        metavar='METHOD',
        help='give metrics class maps, too: inherent ones, or those of a method of '
        'pytorch_grad_cam, such as GradCAM',
    )
    parser.add_argument(
        '--choose-thresholds',
        action='store_true',
        help='first choose a threshold per class for the best F1 on the validation data, and store '
        'them with the checkpoint',
    )
    add_common_arguments(parser)
    return parser


def main() -> None:
    parser = build_parser()
    args = parse_args(parser)
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out, the file to write to')
    if args.tta and (args.show or args.show_dir):
        parser.error('--tta cannot be combined with --show or --show-dir')
    if args.tta and args.maps:
        parser.error('--tta cannot be combined with --maps: the views have maps of their own')
    with one_sentence_errors(args.traceback):
        cfg = load_config(args.config, args.cfg_options)
        if args.choose_thresholds:
            choose_thresholds(cfg, args.checkpoint, work_dir=args.work_dir, launcher=args.launcher)
        test(
            cfg,
            args.checkpoint,
            work_dir=args.work_dir,
            out=args.out,
            out_item=args.out_item,
            amp=args.amp,
            show_dir=args.show_dir,
            show=args.show,
            interval=args.interval,
            wait_time=args.wait_time,
            pin_memory=not args.no_pin_memory,
            tta=args.tta,
            maps=args.maps,
            launcher=args.launcher,
            verbose=args.verbose,
        )


if __name__ == '__main__':
    main()
