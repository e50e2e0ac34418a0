"""Write a chosen subset of VOC or OpenImages, spliced composites, or converted labels, once."""

import argparse
import signal
import sys

from mmengine.config import DictAction

from mhc_plugin.apis.prepare import convert_labels, prepare_openimages, prepare_splices, prepare_voc
from mhc_plugin.cli.arguments import one_sentence_errors


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description='Write a chosen subset of VOC or OpenImages, spliced composites, or the labels '
        'that an annotation tool exported, once: '
        "OpenMMLab's multi-label JSON, which MMPretrain's MultiLabelDataset reads (ours, "
        'JSONMultiLabelDataset, reads the unknown labels, too), and card.json, which says what is '
        'in it and where it came from.',
    )
    commands = parser.add_subparsers(dest='command', required=True)

    voc = commands.add_parser('voc', help='a subset of PASCAL VOC', allow_abbrev=False)
    voc.add_argument(
        '--data-root',
        nargs='+',
        required=True,
        metavar='ROOT',
        help='one or several folders that hold JPEGImages, such as VOC2007 VOC2012',
    )
    voc.add_argument(
        '--splits',
        nargs='+',
        default=['trainval', 'test'],
        metavar='SPLIT',
        help='splits to write; the first decides on classes (%(default)s)',
    )
    voc.add_argument(
        '--difficult',
        choices=['unknown', 'positive', 'negative'],
        default='unknown',
        help='what a class is whose objects are all difficult (%(default)s)',
    )
    add_choice(voc)

    openimages = commands.add_parser(
        'openimages', help='a subset of OpenImages V2 to V7', allow_abbrev=False
    )
    openimages.add_argument(
        '--data-root', required=True, metavar='ROOT', help='the folder of the CSV files'
    )
    openimages.add_argument(
        '--splits',
        nargs='+',
        default=['train', 'test'],
        choices=['train', 'validation', 'test'],
        help='splits to write; the first decides on classes (%(default)s)',
    )
    openimages.add_argument(
        '--labels',
        choices=['image', 'boxes', 'both'],
        default='image',
        help='what says that a class is present (%(default)s)',
    )
    openimages.add_argument(
        '--no-depictions', action='store_true', help='boxes of drawings and the like do not count'
    )
    openimages.add_argument(
        '--image-folder',
        default='<split>',
        metavar='FOLDER',
        help='where the images are, below ROOT if relative (%(default)s)',
    )
    openimages.add_argument(
        '--before-download',
        action='store_true',
        help='choose among all images that the files name, also those that are not on disk',
    )
    for what in ('class', 'label', 'box'):
        openimages.add_argument(
            f'--{what}-file',
            metavar='CSV',
            help='a file with another than its usual name, below ROOT if '
            'relative; <split> stands for the split',
        )
    add_choice(openimages)

    splice = commands.add_parser(
        'splice', help='composites of a spliced dataset as PNG files', allow_abbrev=False
    )
    splice.add_argument('config', help='a config, or combined0, combined1, digits')
    splice.add_argument(
        '--parts',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'test'],
        help='which datasets of the config to write (%(default)s)',
    )
    splice.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config',
    )
    add_common(splice)

    convert = commands.add_parser(
        'convert',
        help='labels exported by Label Studio (JSON-MIN), CVAT (XML) or as COCO JSON',
        allow_abbrev=False,
    )
    convert.add_argument('export', help='the exported file')
    convert.add_argument(
        '--out', required=True, metavar='FILE', help='the file to write, .json or .csv'
    )
    convert.add_argument(
        '--classes', nargs='+', metavar='NAME', help='the classes to take, in their order (all)'
    )
    convert.add_argument(
        '--choices',
        metavar='FIELD',
        help="the field of choices, where Label Studio's export has several",
    )
    convert.add_argument('--traceback', action='store_true', help='show where an error was raised')
    return parser


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Options that choose classes and images."""
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='the classes')
    parser.add_argument(
        '--num-classes',
        type=int,
        default=10,
        help='without --classes: how many to choose (%(default)s)',
    )
    parser.add_argument(
        '--min-labels', type=int, default=2, help='fewest of the classes in an image (%(default)s)'
    )
    parser.add_argument(
        '--max-labels', type=int, default=7, help='most of the classes in an image (%(default)s)'
    )
    parser.add_argument(
        '--max-images',
        type=int,
        default=10_000,
        help='most images of a split, as even over the classes as can be (%(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='decides where nothing else does (%(default)s)'
    )
    add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options of all commands."""
    parser.add_argument(
        '--out',
        required=True,
        metavar='FOLDER',
        help='the folder to make; there must be nothing yet',
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error was raised')


def run(args: argparse.Namespace) -> None:
    """Call the function of a command with its options."""
    options = dict(vars(args))
    command, traceback = options.pop('command'), options.pop('traceback')
    if command == 'openimages':
        options['depictions'] = not options.pop('no_depictions')
        options['require_images'] = not options.pop('before_download')
    prepare = dict(
        voc=prepare_voc,
        openimages=prepare_openimages,
        splice=prepare_splices,
        convert=convert_labels,
    )[command]
    with one_sentence_errors(traceback):
        try:
            print(f'Written: {prepare(**options)}')
        except KeyboardInterrupt:
            print('Interrupted; nothing was written.', file=sys.stderr)
            sys.exit(130)


def main() -> None:
    args = build_parser().parse_args()
    # Ended from outside, the tool takes away what it began, as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(args)


if __name__ == '__main__':
    main()
