"""Heads as files, one per class: extract, assemble, list, compare, remove, add and verify them."""

import argparse

from mhc_plugin.apis import (
    add_head,
    assemble_heads,
    compare_heads,
    extract_heads,
    load_config,
    read_head,
    remove_head,
    verify_heads,
)
from mhc_plugin.apis.head_files import head_paths
from mhc_plugin.cli.arguments import add_common_arguments, one_sentence_errors, parse_args


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)

    def command(name: str, help: str, *arguments: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, allow_abbrev=False)
        for argument in arguments:
            many = dict(nargs='+') if argument == 'files' else {}
            sub.add_argument(argument, **many)
        if 'config' in arguments:
            add_common_arguments(sub)
        else:
            sub.add_argument('--traceback', action='store_true')
        return sub

    sub = command('extract', 'write one file per class', 'config', 'checkpoint', 'out')
    sub.add_argument('--classes', nargs='+', metavar='CLASS', help='these classes alone')
    sub.add_argument('--license', help='of the weights, for the card')
    sub.add_argument(
        '--no-scores', action='store_true', help='do not run the test images to score every head'
    )
    sub = command('assemble', 'make a checkpoint of files', 'config', 'out', 'files')
    sub.add_argument('--backbone-weights', metavar='PATH|none')
    command('list', 'say what is in a folder', 'folder')
    command('diff', 'say what differs between two files', 'a', 'b')
    command('remove', 'delete a class', 'folder', 'class_name')
    sub = command('add', 'train one class beside others', 'config', 'folder', 'class_name')
    sub.add_argument(
        '--optimum',
        nargs='?',
        const='cv-per-class',
        metavar='WEIGHT_DECAY',
        help='solve for the optimum; see tools/train.py',
    )
    sub.add_argument('--cache-dir', help='folder of features')
    sub.add_argument('--backbone-weights', metavar='PATH|none')
    sub = command('verify', 'hold files against a config', 'config', 'files')
    sub.add_argument('--backbone-weights', metavar='PATH|none')
    return parser


def show(head) -> str:
    scores = ', '.join(f'{name} {value:.2f}' for name, value in sorted(head.scores.items()))
    threshold = '' if head.threshold is None else f', threshold {head.threshold:.3f}'
    return (
        f'{head.class_name}: {head.head.get("type")}, backbone {head.backbone[:12]}, '
        f'preprocessing {head.preprocessing[:12]}{threshold}{", " if scores else ""}{scores}'
    )


def main() -> None:
    args = parse_args(build_parser())
    with one_sentence_errors(args.traceback):
        cfg = load_config(args.config, args.cfg_options) if 'config' in args else None
        if args.command == 'extract':
            scores = {} if args.no_scores else None
            paths = extract_heads(
                cfg, args.checkpoint, args.out, args.classes, scores, args.license
            )
            print(f'{len(paths)} heads in {args.out}')
        elif args.command == 'assemble':
            print(assemble_heads(cfg, args.files, args.out, args.backbone_weights))
        elif args.command == 'list':
            for path in head_paths(args.folder):
                print(show(read_head(path)))
        elif args.command == 'diff':
            print('\n'.join(compare_heads(args.a, args.b)) or 'No difference.')
        elif args.command == 'remove':
            print(f'Removed {remove_head(args.folder, args.class_name)}')
        elif args.command == 'add':
            optimum = args.optimum
            if optimum is not None and not optimum.startswith('cv'):
                optimum = float(optimum)
            cache = {} if args.cache_dir is None else dict(cache_dir=args.cache_dir)
            print(
                add_head(
                    cfg,
                    args.folder,
                    args.class_name,
                    optimum=optimum,
                    feature_cache=cache,
                    backbone_weights=args.backbone_weights,
                )
            )
        else:
            for head in verify_heads(cfg, args.files, args.backbone_weights):
                print(show(head))


if __name__ == '__main__':
    main()
