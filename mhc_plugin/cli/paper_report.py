"""The paper's figures beside ours, row by row, and as Markdown."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from mhc_plugin.analysis.paper import ablation_topk, constant_rows, paper_tables
from mhc_plugin.apis.reproduce import (
    ABLATIONS,
    DATASETS,
    PAPER_BACKBONES,
    PAPER_HEADS,
    REDUCTION,
    Cell,
    head_of,
    options_of,
)

from .records import read_record

# The paper's name of a figure, ours, and the title.
FIGURES = (
    ('accuracy', 'accuracy', 'accuracy'),
    ('precision', 'precision', 'precision'),
    ('recall', 'recall', 'recall'),
    ('f1', 'f1', 'F1'),
    ('hamming_loss', 'hamming_distance', 'Hamming'),
)
MICRO = ('combined0', 'combined1')
IN_TABLES = re.compile(
    r'multi-label/(mAP|(accuracy|precision|recall|f1|hamming_distance)_top[145](_micro)?)'
)


def read_cells(folder: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What became of cells, those that differ in the seed alone as one.

    Returns:
        list[dict]: Plain values: ``backbone``, ``head``, ``dataset``, ``schedule``, ``options``
        (list of key and value), ``random`` (whether the backbone's weights are), ``seeds``,
        ``seconds`` and ``metrics`` (of every figure of the tables and mAP), a value each seed,
        ``loss`` (by epoch, mean over seeds), ``prevalence``, ``images``, ``data`` (hash) and
        ``error``, where one failed.
    """
    found = {}
    for cell in cells:
        settings = dict(
            backbone=cell.backbone,
            head=cell.head,
            dataset=cell.dataset,
            schedule=cell.schedule,
            options=[list(option) for option in cell.options],
            random=cell.backbone_weights == 'none',
        )
        own = found.setdefault(
            str(settings), dict(settings, seeds=[], seconds=[], metrics={}, loss=[], error=None)
        )
        failed = folder / f'{cell.name}.error.json'
        if cell.is_finished(folder):
            run = read_record(folder / f'{cell.name}.json')
            own['seeds'].append(cell.seed)
            own['seconds'].append(run['seconds'])
            for name, value in run['scores']['metrics'].items():
                if IN_TABLES.fullmatch(name):
                    own['metrics'].setdefault(name, []).append(round(value, 4))
            own['loss'].append(run['scores']['loss'])
            own.update({key: run['scores'][key] for key in ('prevalence', 'images')})
            own['data'] = run['data']
        elif failed.is_file():
            own['error'] = json.loads(failed.read_text(encoding='utf-8'))['error']
    for own in found.values():
        own['loss'] = [round(float(x), 4) for x in np.mean(own['loss'], 0)] if own['loss'] else []
    return list(found.values())


def chance(prevalence: Sequence[float], k: int) -> dict[str, float]:
    """What k classes drawn at random get, in percent, from each class's share of the images."""
    p, drawn = np.asarray(prevalence), k / len(prevalence)
    accuracy = 100 * float((p * drawn + (1 - p) * (1 - drawn)).mean())
    return dict(
        accuracy=accuracy,
        precision=100 * float(p.mean()),
        recall=100 * drawn,
        hamming_distance=100 - accuracy,
    )


def rows_of(number: int, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one of the paper's tables, and of what we ran beside it.

    Args:
        number (int): The table.
        found (Sequence[dict]): Of :func:`read_cells`.

    Returns:
        list[dict]: ``name`` (list of the row's settings), ``paper`` (dict or None), ``ours``
        (dict of figure to (mean, std or None), or None), ``chance`` (dict), ``verdict`` (str).
    """
    papers = paper_tables()[f'table{number}']
    rows = []
    if number in DATASETS:
        dataset = DATASETS[number]
        constant = constant_rows(papers) if dataset not in MICRO else []
        # A reduction is a variant of a head; the settings of other tables are no rows of this one.
        here = [
            own
            for own in found
            if own['dataset'] == dataset and all(key == REDUCTION for key, _ in own['options'])
        ]
        order = dict.fromkeys([*PAPER_BACKBONES, *(own['backbone'] for own in here)])
        heads = dict.fromkeys([*PAPER_HEADS, *(own['head'] for own in here)])
        for backbone in order:
            for k in sorted({row['topk'] for row in papers}):
                for head in heads:
                    paper = next(
                        (
                            row
                            for row in papers
                            if (row['backbone'], row['topk'], row['model'])
                            == (backbone, k, PAPER_HEADS.get(head))
                        ),
                        None,
                    )
                    runs = [o for o in here if (o['backbone'], o['head']) == (backbone, head)]
                    for own in runs or [None] * (paper is not None):
                        name = [backbone, f'top-{k}', head, *variant(own)]
                        rows.append(_row(name, paper, own, dataset, k, paper in constant))
    else:
        column, _ = ABLATIONS[number]
        for backbone in dict.fromkeys(['seresnet50', *(own['backbone'] for own in found)]):
            for paper in papers:
                head, dataset = head_of(paper), paper['dataset']
                k = ablation_topk(dataset, paper['model'])
                # The paper's ablations are on SE-ResNet50.
                own_paper = paper if backbone == 'seresnet50' else None
                wanted = [list(option) for option in options_of(number, paper)]
                runs = [
                    own
                    for own in found
                    if (own['backbone'], own['head'], own['dataset'], own['options'])
                    == (backbone, head, dataset, wanted)
                ]
                for own in runs or [None] * (own_paper is not None):
                    setting = f'{column} {paper[column]:g}'
                    name = [backbone, dataset, f'top-{k}', setting, head, *variant(own)]
                    rows.append(_row(name, own_paper, own, dataset, k, False))
    return rows


def variant(own: dict | None) -> list[str]:
    """What a row's name says of how it was trained."""
    if own is None:
        return []
    reductions = [value for key, value in own['options'] if key == REDUCTION]
    return [*reductions, own['schedule'], *['random weights'] * own['random']]


def _row(
    name: list[str], paper: dict | None, own: dict | None, dataset: str, k: int, constant: bool
) -> dict[str, Any]:
    ours, level, verdict = None, {}, ['not run']
    if own and own['error']:
        verdict = [own['error']]
    if own and own['seeds']:
        verdict = [own['error']] if own['error'] else []
        suffix = f'_top{k}' + ('_micro' if dataset in MICRO else '')
        ours = {}
        for mine, key in [*((m, f'{m}{suffix}') for _, m, _ in FIGURES), ('mAP', 'mAP')]:
            values = own['metrics'].get(f'multi-label/{key}')
            if values:
                ours[mine] = (mean(values), stdev(values) if len(values) > 1 else None)
        level = chance(own['prevalence'], k)
        if paper and 'precision' in ours:
            ours_mean, std = ours['precision']
            difference = ours_mean - paper['precision']
            noise = 2 * std if std is not None else 0.5
            where = 'above' if difference > 0 else 'below'
            where = 'as' if abs(difference) <= max(noise, 0.005) else where
            verdict.insert(0, f'{where} the paper')
    if constant:
        verdict.append("the paper's row is a constant prediction")
    return dict(name=name, paper=paper, ours=ours, chance=level, verdict='; '.join(verdict))


def cells_of(row: dict[str, Any]) -> list[str]:
    """The cells of a row: its name, every figure as :data:`LEGEND` says, and the verdict."""
    cells = [' '.join(row['name']).strip()]
    for papers, mine, _ in FIGURES:
        paper = (row['paper'] or {}).get(papers)
        ours, std = (row['ours'] or {}).get(mine, (None, None))
        level = row['chance'].get(mine)
        shown = [] if paper is None else [f'{paper:.2f}']
        if ours is not None:
            beside = [] if paper is None else [f'{ours - paper:+.2f}']
            beside += [] if level is None else [f'chance {level:.2f}']
            shown.append(f'→ {ours:.2f}' + ('' if std is None else f' ± {std:.2f}'))
            shown += [f'({", ".join(beside)})'] if beside else []
        cells.append(' '.join(shown))
    mean_ap, std = (row['ours'] or {}).get('mAP', (None, None))
    cells.append(
        '' if mean_ap is None else f'{mean_ap:.2f}' + ('' if std is None else f' ± {std:.2f}')
    )
    return [*cells, row['verdict']]


HEADER = ['row', *(title for *_, title in FIGURES), 'mAP', 'verdict']


def used(rows: list[list[str]], titles: list[str]) -> tuple[list[list[str]], list[str]]:
    """Leave out columns that no row fills."""
    keep = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    return [[row[i] for i in keep] for row in rows], [titles[i] for i in keep]


def sections_of(
    tables: dict[int, list[dict]], found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every table of a report: ``title``, ``legend``, ``titles`` of columns and ``rows``."""
    sections = []
    for number, rows in tables.items():
        body, titles = used([cells_of(row) for row in rows], HEADER)
        sections.append(dict(title=title_of(number), legend=LEGEND, titles=titles, rows=body))
    return [*sections, *[_times(found)] * any(own['seconds'] for own in found)]


def _times(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    parts, datasets = {}, dict.fromkeys(own['dataset'] for own in found)
    for own in found:
        plain = all(key == REDUCTION for key, _ in own['options'])
        name = [own['backbone'], own['head'], own['schedule'], *['ablations'] * (not plain)]
        part = parts.setdefault(' '.join(name), {})
        part.setdefault(own['dataset'], []).extend(own['seconds'])
    rows = []
    for name, part in [*parts.items(), ('all', _joined(parts.values()))]:
        part = {**part, 'all': [s for seconds in part.values() for s in seconds]}
        cells = [part.get(dataset) for dataset in [*datasets, 'all']]
        rows.append([name, *(f'{sum(s):,.0f} s ({len(s)})' if s else '' for s in cells)])
    return dict(
        title='Time',
        legend='Seconds of all trainings and tests (their number), with the features that the '
        'first of a seed and a data set stores; those that share a pass have equal parts of it.',
        titles=['part', *datasets, 'all'],
        rows=rows,
    )


def _joined(parts: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    joined = {}
    for part in parts:
        for dataset, seconds in part.items():
            joined.setdefault(dataset, []).extend(seconds)
    return joined


def results_markdown(sections: Sequence[dict[str, Any]]) -> str:
    """The sections of :func:`sections_of`."""
    lines = []
    for section in sections:
        titles = section['titles']
        lines += [f'## {section["title"]}', '', section['legend'], '']
        lines += [f'| {" | ".join(titles)} |', f'|{" --- |" * len(titles)}']
        lines += [f'| {" | ".join(row)} |' for row in section['rows']]
        lines.append('')
    return '\n'.join(lines)


LEGEND = 'Each cell: paper → ours (difference, chance), in percent; ± over seeds.'


def title_of(number: int) -> str:
    if number in DATASETS:
        return f'Table {number}: {DATASETS[number]}'
    return f'Table {number}: {ABLATIONS[number][0].replace("_", " ")}'
