"""Panels: an image, and for every class its map laid over it."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mmpretrain.structures import DataSample

from .fonts import font_families, missing_glyphs_were_told

# Perceptually uniform, and black where there is nothing.
COLOR_MAP = 'inferno'
_FRAMES = {
    # (predicted, truth): colour of the frame. Truth is 1, 0, -1 (unknown) or None (not given).
    (True, 1): 'tab:green',
    (True, 0): 'tab:red',
    (True, -1): 'tab:blue',
    (True, None): 'tab:blue',
    (False, 1): 'tab:orange',
}
_LEGEND = [
    ('tab:green', 'predicted, present'),
    ('tab:red', 'predicted, absent'),
    ('tab:orange', 'present, not predicted'),
    ('tab:blue', 'predicted, truth not known'),
]
_TRUTH = {1: 'present', 0: 'absent', -1: 'unknown'}
_DPI = 100


@dataclass
class MapView:
    """What one model says about one image.

    Attributes:
        maps (np.ndarray): Raw, non-negative class maps (num_classes, h, w).
        scores (np.ndarray): Scores (num_classes,).
        predicted (np.ndarray): Which classes are predicted, bool (num_classes,).
        title (str): Name of the model, shown where several stand side by side.
    """

    maps: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray
    title: str = ''

    @classmethod
    def of(
        cls, sample: DataSample, classes: Sequence[int] | None = None, title: str = ''
    ) -> 'MapView':
        """Take what a data sample predicts.

        Args:
            sample (DataSample): With ``pred_score``, ``pred_label`` and ``pred_cam``, the maps of
                ``classes``.
            classes (Sequence[int], optional): Which classes to show. Defaults to all.
            title (str): Name of the model.
        """
        scores = sample.pred_score.cpu().float().numpy()
        predicted = np.zeros(len(scores), bool)
        predicted[sample.pred_label.cpu().numpy()] = True
        shown = slice(None) if classes is None else list(classes)
        return cls(sample.pred_cam.cpu().float().numpy(), scores[shown], predicted[shown], title)


def draw_panel(
    image: np.ndarray,
    views: Sequence[MapView],
    classes: Sequence[str],
    truth: np.ndarray | None = None,
    title: str = 'image',
) -> np.ndarray:
    """Draw an image and an overlay per class, the predicted classes first.

    All classes of one model share one scale, from 0 to the highest value of any of its maps on
    this image, so that a class that is not there stays dark. Several models stand side by side,
    each with its own scale and colour bar: their logits need not be of one size.

    Args:
        image (np.ndarray): The image as the model saw it, RGB, uint8 (H, W, 3).
        views (Sequence[MapView]): One or more models; the first one gives the order of classes.
        classes (Sequence[str]): Names of the classes.
        truth (np.ndarray, optional): 1, 0 or -1 (unknown) for every class.
        title (str): Title of the image. Defaults to 'image'.

    Returns:
        np.ndarray: The panel, RGB, uint8 (height, width, 3).

    Raises:
        ValueError: If the number of names, maps, scores and truths differ, or a map is not finite.
    """
    _check(views, classes, truth)
    order = np.lexsort((-views[0].scores, ~views[0].predicted))
    tiles = 1 + len(order)
    columns = _num_columns(tiles, len(views))
    rows = math.ceil(tiles / columns)
    fonts = font_families([title, *map(str, classes), *(view.title for view in views)])
    figure, axes, bars = _layout(rows, columns, len(views), image.shape[1] / image.shape[0])

    for ax in axes[0, 0]:
        ax.set_axis_off()
    axes[0, 0][0].imshow(image)
    axes[0, 0][0].set_title(
        textwrap.shorten(title, 24, placeholder='…'), fontsize=8, fontfamily=fonts
    )
    grey = image.mean(2)
    norms = [Normalize(0, float(view.maps.max()) or 1.0) for view in views]
    cells = [axes[row, column] for row in range(rows) for column in range(columns)]
    for place, cell in enumerate(cells[1:]):
        for ax, view, norm in zip(cell, views, norms):
            if place >= len(order):
                ax.set_axis_off()
                continue
            index = order[place]
            _overlay(ax, grey, view.maps[index], norm)
            known = None if truth is None else int(truth[index])
            name = str(classes[index])
            _label(ax, view, name, index, known, with_title=len(views) > 1, fonts=fonts)
    for bar, view, norm in zip(bars, views, norms):
        figure.colorbar(ScalarMappable(norm, COLOR_MAP), cax=bar)
        bar.tick_params(labelsize=7)
        words = ' '.join(filter(None, [_short(view.title), 'class map (raw)']))
        bar.set_ylabel(words, fontsize=7, fontfamily=fonts)
    _draw_legend(figure, truth is not None)
    canvas = FigureCanvasAgg(figure)
    with missing_glyphs_were_told():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def truth_of(sample: DataSample, num_classes: int) -> np.ndarray | None:
    """Give what an annotation says of every class: 1, 0 or -1 (unknown); None if nothing."""
    if 'gt_score' in sample:
        return sample.gt_score.cpu().numpy()
    if 'gt_label' not in sample:
        return None
    truth = np.zeros(num_classes)
    truth[sample.gt_label.cpu().numpy()] = 1
    return truth


def _check(views: Sequence[MapView], classes: Sequence[str], truth: np.ndarray | None) -> None:
    counts = [len(classes), *(len(x) for v in views for x in (v.maps, v.scores, v.predicted))]
    if truth is not None:
        counts.append(len(truth))
    if len(set(counts)) != 1:
        raise ValueError(
            f'Expected as many maps, scores, predictions and truths as `classes`, but got {counts}.'
        )
    if not all(np.isfinite(view.maps).all() for view in views):
        raise ValueError('Expected finite class maps, but got NaN or infinity.')


def _num_columns(tiles: int, num_views: int) -> int:
    """Columns of a panel about 1.6 times as wide as high, with rows as full as can be."""
    columns = math.ceil(math.sqrt(1.6 * tiles / num_views))
    return math.ceil(tiles / math.ceil(tiles / columns))


def _layout(rows: int, columns: int, num_views: int, aspect: float):
    """Make the figure, its axes (rows, columns) of one list per view, and an axis per bar."""
    tile = 1.9 if rows * columns <= 24 else 1.5
    tile_width, tile_height = tile * min(aspect, 1.5), tile / max(aspect / 1.5, 1)
    gap, head, bar = 0.08, 0.5, 0.75
    cell = num_views * (tile_width + gap) + (0.25 if num_views > 1 else gap)
    width = columns * cell + num_views * bar
    height = rows * (tile_height + head) + 0.4
    figure = Figure(figsize=(width, height), dpi=_DPI)

    def add(left, top, w, h):
        return figure.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))

    axes = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            left = gap + column * cell
            top = row * (tile_height + head) + head
            axes[row, column] = [
                add(left + v * (tile_width + gap), top, tile_width, tile_height)
                for v in range(num_views)
            ]
    bar_height = min(rows * (tile_height + head) - head, 3.0)
    bars = [
        add(width - (num_views - v) * bar + 0.1, head, 0.12, bar_height) for v in range(num_views)
    ]
    return figure, axes, bars


def _overlay(ax, grey: np.ndarray, class_map: np.ndarray, norm: Normalize) -> None:
    height, width = grey.shape
    extent = (0, width, height, 0)
    ax.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=extent)
    ax.imshow(
        class_map, cmap=COLOR_MAP, norm=norm, alpha=0.6, extent=extent, interpolation='bilinear'
    )
    ax.set(xticks=[], yticks=[])


def _label(
    ax,
    view: MapView,
    name: str,
    index: int,
    known: int | None,
    with_title: bool,
    fonts: Sequence[str],
) -> None:
    predicted = bool(view.predicted[index])
    lines = [
        textwrap.shorten(name, 20, placeholder='…') or str(index),
        f'{view.scores[index]:.2f}' + ('' if known is None else f' {_TRUTH[known]}'),
    ]
    if with_title:
        lines[1] = f'{_short(view.title)}: {lines[1]}'
    weight = 'bold' if predicted else 'normal'
    ax.set_title('\n'.join(lines), fontsize=8, fontweight=weight, fontfamily=fonts)
    color = _FRAMES.get((predicted, known))
    for spine in ax.spines.values():
        spine.set(visible=color is not None, color=color, linewidth=2.5)


def _short(title: str) -> str:
    """Cut a title to what fits above a tile; names of checkpoints differ at their end."""
    return title if len(title) <= 16 else f'…{title[-15:]}'


def _draw_legend(figure, with_truth: bool) -> None:
    entries = _LEGEND if with_truth else [('tab:blue', 'predicted')]
    x = 0.08 / figure.get_figwidth()
    for color, words in entries:
        figure.text(x, 0.08 / figure.get_figheight(), f'■ {words}', color=color, fontsize=7)
        x += (0.35 + 0.055 * len(words)) / figure.get_figwidth()
