"""Serve a local page: drop an image, see labels, scores and a map per class."""

import argparse
from pathlib import Path

from mhc_plugin.apis import MultiLabelInferencer, load_config
from mhc_plugin.apis.page import build_page
from mhc_plugin.cli.arguments import one_sentence_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description='Serve a page for a model on this machine'
    )
    parser.add_argument(
        'config', help='a file, mhc_plugin::mhc/<name>.py, or the name of a config of mhc_plugin'
    )
    parser.add_argument('checkpoint', help='a file or URL')
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument('--thr', type=float, help='scores from here on are predicted')
    rule.add_argument('--topk', type=int, help='so many highest scores are predicted')
    parser.add_argument('--host', default='127.0.0.1', help='address to serve on')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--device', help='CUDA where there is any, else CPU')
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        inferencer = MultiLabelInferencer(
            load_config(args.config), args.checkpoint, args.device, thr=args.thr, topk=args.topk
        )
        page = build_page(inferencer, title=Path(args.config).stem)
        page.launch(server_name=args.host, server_port=args.port)


if __name__ == '__main__':
    main()
