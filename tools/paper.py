"""What the paper's tables say about themselves, by computation.

python tools/paper.py tables                  # constant rows, repeats, sums that miss 100
python tools/paper.py voc LABELS [LABELS ...] # which ten classes of VOC fit them; seconds
"""

import argparse
import time
from collections import Counter

from rich.console import Console
from rich.table import Table

from mhc_plugin.analysis import paper
from mhc_plugin.cli.arguments import one_sentence_errors
from mhc_plugin.cli.records import files_hash, write_record


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    tables = commands.add_parser(
        'tables', help='constant rows, repeats, sums that miss 100', allow_abbrev=False
    )
    tables.set_defaults(main=print_tables)
    voc = commands.add_parser(
        'voc', help='which ten classes of VOC fit the constant rows', allow_abbrev=False
    )
    voc.add_argument(
        'labels',
        nargs='+',
        help='CSV files of images and classes: 1 present, 0 only as a difficult object, -1 absent',
    )
    voc.add_argument('--tolerance', type=float, default=0.003, help='0.003 by default')
    voc.add_argument('--record', help='file for all figures, .json')
    voc.set_defaults(main=search_voc)
    for command in (tables, voc):
        command.add_argument(
            '--traceback', action='store_true', help='show where an error was raised'
        )
    return parser.parse_args()


def print_tables(args: argparse.Namespace) -> None:
    console = Console(width=120)
    for title, found, num_rows in paper.findings():
        table = Table(title=f'{title}: {len(found)} of {num_rows} rows', title_justify='left')
        for name in found[0]:
            table.add_column(name)
        for row in found:
            table.add_row(*map(str, row.values()))
        console.print(table)


def search_voc(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    row = paper.constant_rows(paper.paper_tables()['table3'])[0]
    labels, share = paper.labels_of_a_constant_row(row)
    print(f'The constant row has {labels:.3f} labels an image, and one class in {share:.1%}.')
    scores = dict(labels=labels, share=share)
    for difficult in (False, True):
        classes, present = paper.read_voc_labels(args.labels, difficult)
        choices = paper.count_choices(classes, present)
        fits = choices.fitting(labels, share, args.tolerance)
        named = [[c for c, own in zip(classes, choices.chosen[i]) if own] for i in fits]
        often = Counter(name for names in named for name in names)
        scores['difficult_present' if difficult else 'difficult_absent'] = dict(
            num_images=len(present),
            most_labels=float(choices.labels.max()),
            most_images=int(choices.num_images.max()),
            fits=named,
        )
        most = f'{choices.labels.max():.3f} labels an image, {choices.num_images.max()} images'
        print(
            f'\nDifficult objects {"present" if difficult else "left out"}, {len(present)} images, '
            f'{len(choices.labels)} choices: at most {most} with 2 to 7; {len(fits)} fit.'
        )
        print(' '.join(f'{name} {n}' for name, n in often.most_common()))
        for i, names in zip(fits, named):
            print(f'{choices.labels[i]:.3f} {choices.num_images[i]}', *names)
    if args.record:
        seconds = time.perf_counter() - start
        write_record(args.record, scores, seconds=seconds, data=files_hash(args.labels))


def main() -> None:
    args = parse_args()
    with one_sentence_errors(args.traceback):
        args.main(args)


if __name__ == '__main__':
    main()
