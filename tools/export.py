"""Write a model as ONNX, checked against PyTorch."""

import argparse

from mhc_plugin.apis import load_config, load_model
from mhc_plugin.apis.export import export_onnx
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.datasets.images import test_image_size


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description='Write a model as ONNX: from float32 images (N, 3, H, W) in 0..255, any N, to '
        'scores and, on request, class maps. It is compared with PyTorch before it is written.',
    )
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument('checkpoint', help='a file or URL')
    parser.add_argument('out', help='file to write, .onnx')
    parser.add_argument(
        '--maps', action='store_true', help='inherent class maps of all classes in the same graph'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images; what the test pipeline makes by default',
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        cfg = load_config(args.config)
        model = load_model(cfg, args.checkpoint, device='cpu')
        size = args.size or test_image_size(cfg)
        difference = export_onnx(model, args.out, tuple(size), args.maps)
        print(
            f'Wrote {args.out} for images of {size[0]} x {size[1]}; onnxruntime differs from '
            f'PyTorch by {difference:.1g} at most.'
        )


if __name__ == '__main__':
    main()
