"""The paper's figures beside ours, as Markdown and as one page of HTML."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from mhc_plugin.analysis.paper import ablation_topk, constant_rows, paper_tables
from mhc_plugin.apis.reproduce import (
    ABLATIONS,
    DATASETS,
    PAPER_BACKBONES,
    PAPER_HEADS,
    Cell,
    head_of,
    options_of,
)

from .records import read_record, summarise

# The paper's name of a figure, ours, and the title.
FIGURES = (
    ('accuracy', 'accuracy', 'accuracy'),
    ('precision', 'precision', 'precision'),
    ('recall', 'recall', 'recall'),
    ('f1', 'f1', 'F1'),
    ('hamming_loss', 'hamming_distance', 'Hamming'),
)
MICRO = ('combined0', 'combined1')


def read_cells(folder: Path, cells: Sequence[Cell]) -> dict[tuple, dict[str, Any]]:
    """Records of cells, those that differ in the seed alone together.

    Returns:
        dict: For (backbone, head, dataset, options, schedule) the ``runs``, and ``error`` where
        one failed.
    """
    found = {}
    for cell in cells:
        own = found.setdefault(
            (cell.backbone, cell.head, cell.dataset, cell.options, cell.schedule),
            dict(runs=[], error=None),
        )
        failed = folder / f'{cell.name}.error.json'
        if cell.is_finished(folder):
            own['runs'].append(read_record(folder / f'{cell.name}.json'))
        elif failed.is_file():
            own['error'] = json.loads(failed.read_text(encoding='utf-8'))['error']
    return found


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


def rows_of(number: int, found: dict[tuple, dict]) -> list[dict[str, Any]]:
    """The rows of one of the paper's tables, and of what we ran beside it.

    Returns:
        list[dict]: ``name`` (list of the row's settings), ``paper`` (dict or None), ``ours``
        (dict of figure to (mean, std or None), or None), ``chance`` (dict), ``verdict`` (str).
    """
    papers = paper_tables()[f'table{number}']
    rows = []
    schedules = list(dict.fromkeys(key[4] for key in found)) or ['']
    if number in DATASETS:
        dataset = DATASETS[number]
        constant = constant_rows(papers) if dataset not in MICRO else []
        order = dict.fromkeys([*PAPER_BACKBONES, *(key[0] for key in found)])
        ran = {key[1]: None for key in found if key[2] == dataset}
        for backbone in order:
            for k in sorted({row['topk'] for row in papers}):
                for head in {**dict.fromkeys(PAPER_HEADS), **ran}:
                    paper = next(
                        (
                            row
                            for row in papers
                            if (row['backbone'], row['topk'], row['model'])
                            == (backbone, k, PAPER_HEADS.get(head))
                        ),
                        None,
                    )
                    for schedule in schedules:
                        own = found.get((backbone, head, dataset, (), schedule))
                        if own or (paper and schedule == schedules[0]):
                            name = [backbone, f'top-{k}', head, schedule]
                            rows.append(_row(name, paper, own, dataset, k, paper in constant))
    else:
        column, _ = ABLATIONS[number]
        for backbone in {key[0]: None for key in found} or {'seresnet50': None}:
            for paper in papers:
                head, dataset = head_of(paper), paper['dataset']
                k = ablation_topk(dataset, paper['model'])
                # The paper's ablations are on SE-ResNet50.
                own_paper = paper if backbone == 'seresnet50' else None
                for schedule in schedules:
                    own = found.get((backbone, head, dataset, options_of(number, paper), schedule))
                    if own or (own_paper and schedule == schedules[0]):
                        setting = f'{column} {paper[column]:g}'
                        name = [backbone, dataset, f'top-{k}', setting, head, schedule]
                        rows.append(_row(name, own_paper, own, dataset, k, False))
    return rows


def _row(
    name: list[str], paper: dict | None, own: dict | None, dataset: str, k: int, constant: bool
) -> dict[str, Any]:
    ours, level, verdict = None, {}, ['not run']
    if own and own['error']:
        verdict = [own['error']]
    if own and own['runs']:
        suffix = f'_top{k}' + ('_micro' if dataset in MICRO else '')
        summary = summarise([run['scores']['metrics'] for run in own['runs']])
        ours = {
            mine: (summary[key]['mean'], summary[key]['std'])
            for _, mine, _ in FIGURES
            if (key := f'multi-label/{mine}{suffix}') in summary
        }
        level = chance(own['runs'][0]['scores']['prevalence'], k)
        verdict = []
        if paper and 'precision' in ours:
            mean, std = ours['precision']
            difference = mean - paper['precision']
            noise = 2 * std if std is not None else 0.5
            verdict.append(
                'as the paper'
                if abs(difference) <= max(noise, 0.005)
                else ('above the paper' if difference > 0 else 'below the paper')
            )
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
    return [*cells, row['verdict']]


def header(rows: Sequence[dict]) -> list[str]:
    return ['row', *(title for *_, title in FIGURES), 'verdict']


def used(rows: list[list[str]], titles: list[str]) -> tuple[list[list[str]], list[str]]:
    """Leave out columns that no row fills."""
    keep = [i for i in range(len(titles)) if any(row[i] for row in rows)]
    return [[row[i] for i in keep] for row in rows], [titles[i] for i in keep]


def results_markdown(tables: dict[int, list[dict]], about: Sequence[str]) -> str:
    """RESULTS.md: a section per table."""
    lines = ['# Results', '', *about, '']
    for number, rows in tables.items():
        body, titles = used([cells_of(row) for row in rows], header(rows))
        lines += [f'## {title_of(number)}', '', LEGEND, '']
        lines += [f'| {" | ".join(titles)} |', f'|{" --- |" * len(titles)}']
        lines += [f'| {" | ".join(row)} |' for row in body]
        lines.append('')
    return '\n'.join(lines)


LEGEND = 'Each cell: paper → ours (difference, chance), in percent.'


def title_of(number: int) -> str:
    if number in DATASETS:
        return f'Table {number}: {DATASETS[number]}'
    return f'Table {number}: {ABLATIONS[number][0].replace("_", " ")}'


def results_html(
    tables: dict[int, list[dict]],
    about: Sequence[str],
    curves: dict[str, list[float]],
    data: dict[str, dict],
    panels: dict[str, Path] = {},
) -> str:
    """One page without scripts or anything from elsewhere, for phones and desks.

    Args:
        tables (dict): Of every table its rows, see :func:`rows_of`.
        about (Sequence[str]): Lines on how it was made.
        curves (dict[str, list[float]]): Of every run its loss by epoch.
        data (dict[str, dict]): Of every data set what its card says.
        panels (dict[str, Path]): Pictures of class maps by title. Defaults to none.
    """
    sections = []
    for number, rows in tables.items():
        body, titles = used([cells_of(row) for row in rows], header(rows))
        sections.append(dict(title=title_of(number), titles=titles, rows=body))
    about = [line.replace('`', '') for line in about]
    page = Environment(autoescape=True).from_string(PAGE)
    return page.render(
        sections=sections,
        about=about,
        legend=LEGEND,
        data=data,
        curves=curves_svg(curves),
        panels={title: picture(path) for title, path in panels.items()},
    )


def picture(path: Path, width: int = 1400) -> str:
    """A picture as the text of an address that holds it."""
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((width, 10 * width))
        image.convert('RGB').save(stream, 'WEBP', quality=80)
    return 'data:image/webp;base64,' + base64.b64encode(stream.getvalue()).decode()


def curves_svg(curves: dict[str, list[float]]) -> str:
    """Loss by epoch of every run, as SVG; empty without runs."""
    if not curves:
        return ''
    figure = Figure(figsize=(7, 4), layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for name, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, label=name, linewidth=1)
    axes.set(xlabel='epoch', ylabel='loss', yscale='log')
    axes.legend(fontsize=6)
    stream = io.StringIO()
    figure.savefig(stream, format='svg')
    text = stream.getvalue()
    return text[text.index('<svg') :]


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Results beside the paper's</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .6rem; text-align: left; }
th, td { white-space: nowrap; }
th { position: sticky; top: 0; background: Canvas; }
th:first-child, td:first-child { position: sticky; left: 0; background: Canvas; }
td:last-child { white-space: normal; min-width: 12rem; }
figure { margin: 0 0 1rem; }
svg, img { max-width: 100%; height: auto; background: #fff; }
:root { color-scheme: light dark; }
</style>
</head>
<body>
<h1>Results beside the paper's</h1>
{% for line in about %}<p>{{ line }}</p>
{% endfor %}
{% for section in sections %}
<h2>{{ section.title }}</h2>
<p>{{ legend }}</p>
<div class="wide"><table>
<tr>{% for title in section.titles %}<th>{{ title }}</th>{% endfor %}</tr>
{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endfor %}
{% if curves %}<h2>Loss by epoch</h2>
{{ curves | safe }}{% endif %}
{% if panels %}<h2>Class maps before and after training</h2>
{% for title, address in panels.items() %}<figure><img src="{{ address }}" alt="{{ title }}">
<figcaption>{{ title }}</figcaption></figure>
{% endfor %}{% endif %}
{% if data %}<h2>Data</h2>
<div class="wide"><table>
<tr><th>set</th><th>test images</th><th>labels an image</th><th>hash</th></tr>
{% for name, card in data.items() %}<tr><td>{{ name }}</td><td>{{ card.images }}</td>
<td>{{ "%.3f" | format(card.labels) }}</td><td>{{ card.hash }}</td></tr>
{% endfor %}</table></div>{% endif %}
</body>
</html>
"""
