"""Write the tables and figures of README.md, RESULTS.md and docs/ from the records in results/.

Between `<!-- table: NAME -->` and `<!-- end -->` of a page stands what the table NAME says below.
docs/learning-rate.svg and docs/report.html are drawn from the same records, and begin with a hash
of them.

python tools/write_tables.py           # write them
python tools/write_tables.py --check   # exit with 1 if a digit differs, or a record is missing

Records of runs whose code has changed since are named, and marked in the pages.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mhc_plugin.analysis import paper
from mhc_plugin.cli.paper_page import learning_rate_svg, results_html
from mhc_plugin.cli.paper_report import results_markdown, rows_of, sections_of
from mhc_plugin.cli.records import read_record

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r'(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)', re.DOTALL)
# In the markup of what is printed.
BOLD = re.compile(r'\[bold\](.*?)\[/\]')
STALE = ' **Stale**: the code has changed since.'
HEADS = {
    'baseline': 'baseline',
    'multifc': 'MultiFC',
    'multifc-channels': 'MultiFC, channels',
    'multifc-stages': 'MultiFC, stages',
    'multiconv': 'MultiConv',
    'convfc': 'ConvFC, 16 channels',
    'convfc-wide': 'ConvFC, 160 channels',
    'multiatt': 'MultiAtt',
}
# Title, name of the score, digits, and the level of chance: a name, a figure, or None.
PRECISION = ('top-4 precision', 'multi-label/precision_top4_micro', 1, 40.0)
MEAN_AP = ('mAP', 'multi-label/mAP', 1, None)
GRID_PG = ('GridPG', 'multi-label/grid_pg', 1, 'multi-label/grid_pg_chance')
SWAP = ('Swap', 'swap', 1, 'swap_chance')
SPLICED = [PRECISION, MEAN_AP, GRID_PG, SWAP]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def source(record: dict) -> str:
    """One line: where the figures are from, and whether the code has changed since."""
    parts = [f'commit {record["commit"] or "unknown"}', record['date'][:10], record['machine']]
    if record['seeds']:
        parts.append(f'seeds {", ".join(map(str, record["seeds"]))}')
    stale = STALE if record['stale'] else ''
    where = f'[{record["name"]}](results/{record["name"]}.json)'
    return f'Record {where}: {", ".join(parts)}.{stale}'


def scores(
    name: str, columns: Sequence[tuple], heads: Sequence[str] = tuple(HEADS)
) -> Callable[[Path], str]:
    """A head a row, mean and standard deviation over seeds, the best of a column in bold."""

    def write(results: Path) -> str:
        record = read_record(results / f'{name}.json')
        found = {config.split('_')[1]: own for config, own in record['scores'].items()}
        rows = [[HEADS[head]] for head in heads if head in found]
        groups = [found[head] for head in heads if head in found]
        footer = ['chance']
        for _, score, digits, chance in columns:
            means = [round(group[score]['mean'], digits) for group in groups]
            for row, group, mean in zip(rows, groups, means):
                std = group[score]['std']
                cell = f'{mean + 0.0:.{digits}f}' + ('' if std is None else f' ± {std:.{digits}f}')
                row.append(f'**{cell}**' if mean == max(means) else cell)
            level = groups[0][chance]['mean'] if isinstance(chance, str) else chance
            footer.append('' if level is None else f'{level:.{digits}f}')
        table = markdown(['head', *(title for title, *_ in columns)], [*rows, footer])
        return f'{table}\n\n{source(record)}'

    return write


def printed(
    name: str, columns: Sequence[str] | None = None, heads: Sequence[str] | None = None
) -> Callable[[Path], str]:
    """The tables that a tool printed, as they are, or some columns and heads of the first."""

    def write(results: Path) -> str:
        record = read_record(results / f'{name}.json')
        parts = []
        for table in record['scores'] if columns is None else record['scores'][:1]:
            own = columns or table['columns']
            rows = [dict(zip(table['columns'], row)) for row in table['rows']]
            if heads is not None:
                found = {row['head']: row for row in rows}
                rows = [found[head] for head in heads if head in found]
            if table['title'] and columns is None:
                parts.append(f'{table["title"]}:')
            parts.append(
                markdown(own, [[BOLD.sub(r'**\1**', row[c]) for c in own] for row in rows])
            )
        return '\n\n'.join([*parts, source(record)])

    return write


def swept(names: Sequence[str], titles: dict[str, str]) -> Callable[[Path], str]:
    """A setting of a sweep a row: its values, precision and mAP."""

    def write(results: Path) -> str:
        rows, records = [], [read_record(results / f'{name}.json') for name in names]
        columns = [PRECISION, MEAN_AP]
        for record in records:
            for own in record['scores']['settings']:
                options = {key.rpartition('.')[2]: value for key, value in own['options'].items()}
                row = [record['scores']['config'], *(options.get(key, '') for key in titles)]
                for _, score, digits, _ in columns:
                    row.append(shown(own['metrics'].get(score), digits))
                rows.append(row)
        # Data sets of one label an image have no top-4 precision.
        keep = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
        header = ['config', *titles.values(), *(title for title, *_ in columns)]
        table = markdown([header[i] for i in keep], [[row[i] for i in keep] for row in rows])
        return '\n\n'.join([table, '\n'.join(map(source, records))])

    return write


def shown(score: dict | None, digits: int) -> str:
    if score is None:
        return ''
    std = '' if score['std'] is None else f' ± {score["std"]:.{digits}f}'
    return f'{score["mean"]:.{digits}f}{std}'


def all_results(results: Path) -> str:
    """Every row of the paper's tables beside ours."""
    record = read_record(results / 'tables.json')
    own = record['scores']
    tables = {number: rows_of(number, own['rows']) for number in own['tables']}
    said = f'{own["trainings"]} of {own["planned"]} trainings: `{record["command"]}`'
    return '\n\n'.join([source(record), said, results_markdown(sections_of(tables, own['rows']))])


def random_backbones(results: Path) -> str:
    """Ours of Table 1 with backbones that were never trained, beside the paper's and chance."""
    records = [read_record(results / f'{name}.json') for name in ('random', 'random_vgg19')]
    rows = []
    for row in rows_of(1, [own for record in records for own in record['scores']['rows']]):
        if row['ours'] is not None:
            name = [part for part in row['name'] if part not in ('short', 'random weights')]
            paper = '' if row['paper'] is None else f'{row["paper"]["precision"]:.1f}'
            mean, std = row['ours']['precision']
            ours = shown(dict(mean=mean, std=std), 1)
            rows.append([' '.join(name), paper, ours, f'{row["chance"]["precision"]:.1f}'])
    table = markdown(['row', "paper's precision", 'ours, random weights', 'chance'], rows)
    return '\n\n'.join([table, '\n'.join(map(source, records))])


def papers_tables(results: Path) -> str:
    """Rows of the paper's tables of which something can be said without a run."""
    return markdown(
        ['what', 'rows', 'of'],
        [[title, len(found), number] for title, found, number in paper.findings()],
    )


def constant_rows(results: Path) -> str:
    """What the rows of constant predictions give away."""
    rows = []
    for number, data in ((3, 'VOC'), (4, 'OpenImages')):
        found = paper.constant_rows(paper.paper_tables()[f'table{number}'])
        for row in {
            tuple(r[k] for k in ('topk', 'accuracy', 'precision')): r for r in found
        }.values():
            labels, share = paper.labels_of_a_constant_row(row)
            same = [
                f'{r["backbone"]} {r["model"]}'
                for r in found
                if (r['topk'], r['accuracy'], r['precision'])
                == (row['topk'], row['accuracy'], row['precision'])
            ]
            rows.append(
                [
                    data,
                    row['topk'],
                    f'{row["accuracy"]:.2f} / {row["precision"]:.2f}',
                    ', '.join(same),
                    f'{labels:.3f}',
                    f'{share:.3f}',
                ]
            )
    return markdown(
        ['data', 'k', 'accuracy / precision', 'rows', 'labels an image', 'shares of the k classes'],
        rows,
    )


def voc_choices(results: Path) -> str:
    """Which ten classes of VOC fit the paper's constant row."""
    rows, records = [], []
    for name, images in (
        ('voc2007', 'VOC2007'),
        ('voc2007_trainval', 'VOC2007 trainval'),
        ('voc2007_and_2012val', 'VOC2007 and VOC2012 val'),
    ):
        record = read_record(results / f'paper_{name}.json')
        records.append(record)
        for key, difficult in (('difficult_absent', 'left out'), ('difficult_present', 'present')):
            own = record['scores'][key]
            every = sorted(set.intersection(*map(set, own['fits']))) if own['fits'] else []
            rows.append(
                [
                    images,
                    difficult,
                    f'{own["most_labels"]:.3f}',
                    f'{own["most_images"]:,} of {own["num_images"]:,}',
                    len(own['fits']),
                    ', '.join(every),
                ]
            )
    header = [
        'images',
        'difficult objects',
        'most labels an image',
        'most images with 2 to 7',
        'choices that fit',
        'in all of them',
    ]
    return '\n\n'.join([markdown(header, rows), '\n'.join(map(source, records))])


TABLES = {
    'combined0': printed(
        'peers_combined0',
        ('head', 'mAP', 'top-4', 'GridPG', 'Swap', 'parameters'),
        (
            'linear = MultiFC, avg',
            'linear, by root',
            'MultiConv',
            'B-cos linear',
            'CSRA',
            'attention',
        ),
    ),
    'peers-combined0': printed('peers_combined0'),
    'peers-voc': printed('peers_voc'),
    'connections': scores('maps_connections', SPLICED),
    'digits': scores('maps_digits', SPLICED),
    'cache': printed('cache'),
    'optimum-combined0': printed('optimum_combined0'),
    'optimum-voc': printed('optimum_voc'),
    'optimum-large': printed('optimum_large'),
    'separate': printed('separate'),
    'scale': printed('scale'),
    'metrics': printed('metrics'),
    'speed-heads': printed('speed_heads'),
    'speed-maps': printed('speed_maps'),
    'results': all_results,
    'learning-rate': swept(
        ['learning_rate_baseline', 'learning_rate_multifc'],
        dict(head_reduction='reduction', lr='learning rate'),
    ),
    'schedules': swept(
        ['schedules_combined0', 'schedules_voc'], dict(max_epochs='epochs', optimum='optimum')
    ),
    'random-backbones': random_backbones,
    'paper': papers_tables,
    'paper-constant': constant_rows,
    'paper-voc': voc_choices,
}


def report(records: Sequence[dict]) -> str:
    """RESULTS.md as a page, with curves and cards of the data sets."""
    (record,) = records
    own = record['scores']
    about = [
        f'Commit {record["commit"]}, {record["date"]}, {record["machine"]}; '
        f'{own["trainings"]} of {own["planned"]} trainings.',
        f'Run by {record["command"]}.',
    ]
    tables = {number: rows_of(number, own['rows']) for number in own['tables']}
    return results_html(sections_of(tables, own['rows']), about, own['rows'])


# Of every file in docs/ that is drawn, the function that draws it and the records it takes.
DRAWN = {
    'learning-rate.svg': (learning_rate_svg, ('learning_rate_baseline', 'learning_rate_multifc')),
    'report.html': (report, ('tables',)),
}


def filled(page: Path, results: Path) -> str:
    """The text of a page with its tables written anew, and records linked from where it is.

    Raises:
        FileNotFoundError: If a record is missing.
        ValueError: If it names a table that is not known, or a record is none.
    """

    def table(match: re.Match) -> str:
        if match[2] not in TABLES:
            raise ValueError(f'Expected a table of {list(TABLES)}, but got {match[2]!r}.')
        text = TABLES[match[2]](results).replace('](results/', f']({link}/')
        return f'{match[1]}{text}\n{match[4]}'

    link = os.path.relpath(results, page.parent)
    return MARKED.sub(table, page.read_text(encoding='utf-8'))


def write_drawn(results: Path, folder: Path, check: bool) -> list[str]:
    """Draw what differs from the records; the names of those that do."""
    changed = []
    for name, (draw, sources) in DRAWN.items():
        records = [read_record(results / f'{own}.json') for own in sources]
        text = json.dumps([record['scores'] for record in records], sort_keys=True)
        # The text of a drawing differs between versions of what draws it.
        mark = f'<!-- {hashlib.sha256(text.encode()).hexdigest()[:16]} -->'
        path = folder / name
        if not path.is_file() or not path.read_text(encoding='utf-8').startswith(mark):
            changed.append(name)
            if not check:
                path.write_text(f'{mark}\n{draw(records)}', encoding='utf-8')
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing, compare')
    args = parser.parse_args()
    changed = []
    for path in (ROOT / 'README.md', ROOT / 'RESULTS.md', *sorted((ROOT / 'docs').glob('*.md'))):
        text = path.read_text(encoding='utf-8')
        try:
            wanted = filled(path, ROOT / 'results')
        except (FileNotFoundError, ValueError) as error:
            print(f'{path.name}: {error}', file=sys.stderr)
            return 1
        # A commit that changes code makes records stale, not pages wrong.
        if args.check and wanted.replace(STALE, '') != text.replace(STALE, ''):
            changed.append(path.name)
        if not args.check and wanted != text:
            path.write_text(wanted, encoding='utf-8')
    try:
        drawn = write_drawn(ROOT / 'results', ROOT / 'docs', args.check)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    changed += drawn if args.check else []
    old = [
        path.name
        for path in sorted((ROOT / 'results').glob('*.json'))
        if read_record(path)['stale']
    ]
    if old:
        print(f'Measured with other code than that of today: {", ".join(old)}.')
    if changed:
        print(
            f'Not as the records say: {", ".join(changed)}. Run `python tools/write_tables.py`.',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
