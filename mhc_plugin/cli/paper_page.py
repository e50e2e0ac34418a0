"""The page of results: one file of HTML, with its drawings in it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from mhc_plugin.analysis.paper import NUM_CLASSES
from mhc_plugin.apis.reproduce import REDUCTION

from .paper_report import variant


def results_html(
    sections: Sequence[dict[str, Any]],
    about: Sequence[str],
    found: Sequence[dict[str, Any]],
    panels: dict[str, Path] = {},
) -> str:
    """One page without scripts or anything from elsewhere, for phones and desks.

    Args:
        sections (Sequence[dict]): Of :func:`sections_of`.
        about (Sequence[str]): Lines on how it was made.
        found (Sequence[dict]): Of :func:`read_cells`, for the curves and the cards of data sets.
        panels (dict[str, Path]): Pictures of class maps by title. Defaults to none.
    """
    cards = {
        own['dataset']: dict(
            images=own['images'],
            classes=len(own['prevalence']),
            labels=sum(own['prevalence']),
            most=max(own['prevalence']),
            least=min(own['prevalence']),
            hash=own['data'],
        )
        for own in found
        if own['seeds']
    }
    page = Environment(autoescape=True).from_string(PAGE)
    return page.render(
        sections=sections,
        about=[line.replace('`', '') for line in about],
        data=cards,
        curves=curves_svg(found),
        panels={title: picture(path) for title, path in panels.items()},
    )


def picture(path: Path, width: int = 1400) -> str:
    """A picture as the text of an address that holds it."""
    stream = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((width, 10 * width))
        image.convert('RGB').save(stream, 'WEBP', quality=80)
    return 'data:image/webp;base64,' + base64.b64encode(stream.getvalue()).decode()


def curves_svg(found: Sequence[dict[str, Any]]) -> str:
    """Loss by epoch, a plot per data set and a line per head, as SVG; empty without runs."""
    shown = {}
    for own in found:
        if own['loss'] and all(key == REDUCTION for key, _ in own['options']):
            label = ' '.join([own['backbone'], own['head'], *variant(own)])
            shown.setdefault(own['dataset'], {})[label] = own['loss']
    if not shown:
        return ''
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(5.5 * columns, 3.5 * rows), layout='constrained')
    FigureCanvasSVG(figure)
    plots = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in plots[len(shown) :]:
        axes.remove()
    for axes, (dataset, curves) in zip(plots, shown.items()):
        for label, losses in curves.items():
            axes.plot(range(1, len(losses) + 1), losses, label=label, linewidth=1)
        axes.set(title=dataset, xlabel='epoch', ylabel='loss', ylim=(0, None))
        axes.legend(fontsize=6)
    return _svg(figure)


def learning_rate_svg(records: Sequence[dict[str, Any]]) -> str:
    """mAP over the learning rate, for the sum and the mean over classes of the losses.

    Args:
        records (Sequence[dict]): Of tools/sweep.py, one a config; ``lr`` and ``head_reduction`` are
            varied.
    """
    figure = Figure(figsize=(9, 3.5), layout='constrained')
    FigureCanvasSVG(figure)
    plots = figure.subplots(1, 2, sharey=True)
    for own, marker in zip((record['scores'] for record in records), 'ox'):
        curves = {}
        for row in own['settings']:
            options = {key.rpartition('.')[2]: value for key, value in row['options'].items()}
            score = row['metrics'].get('multi-label/mAP')
            if score is not None:
                point = options['lr'], score['mean'], score['std'] or 0
                curves.setdefault(options['head_reduction'], []).append(point)
        for reduction, points in curves.items():
            lr, means, stds = map(np.array, zip(*sorted(points)))
            label = f'{own["config"].split("_")[1]}, {reduction}'
            style = dict(
                label=label,
                marker=marker,
                linestyle='-' if reduction == 'sum' else '--',
                markersize=5,
                linewidth=1,
            )
            plots[0].errorbar(lr, means, stds, **style)
            plots[1].errorbar(lr / NUM_CLASSES if reduction == 'mean' else lr, means, stds, **style)
    for axes, title in zip(
        plots, ('learning rate', f'learning rate; of the mean, divided by {NUM_CLASSES}')
    ):
        axes.set(xscale='log', xlabel=title)
        axes.grid(alpha=0.3)
    plots[0].set(ylabel='mAP')
    plots[0].legend(fontsize=7)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': 'mhc_plugin', 'svg.fonttype': 'none'}):
        figure.savefig(stream, format='svg', metadata=dict(Date=None))
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
@media (max-width: 40rem) { td:first-child { white-space: normal; min-width: 8rem; } }
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
<p>{{ section.legend }}</p>
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
<tr><th>set</th><th>test images</th><th>classes</th><th>labels an image</th>
<th>images of the rarest and of the most frequent class</th><th>hash</th></tr>
{% for name, card in data.items() %}<tr><td>{{ name }}</td><td>{{ card.images }}</td>
<td>{{ card.classes }}</td><td>{{ "%.3f" | format(card.labels) }}</td>
<td>{{ "%.1f %% to %.1f %%" | format(100 * card.least, 100 * card.most) }}</td>
<td>{{ card.hash }}</td></tr>
{% endfor %}</table></div>{% endif %}
</body>
</html>
"""
