from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.panels import COLOR_MAP, MapView, _num_columns, draw_panel

GREY = np.full((40, 60, 3), 128, np.uint8)
NAMES = ['cat', 'dog', 'a class with a name far too long for its tile']


def view(maps=None, scores=(0.2, 0.9, 0.4), predicted=(False, True, False), title=''):
    maps = np.zeros((3, 2, 2), np.float32) if maps is None else maps
    return MapView(maps, np.array(scores), np.array(predicted), title)


def drawn_titles(monkeypatch, *args, **kwargs):
    """Titles of the tiles, in the order in which they are drawn."""
    titles = []
    from matplotlib.axes import Axes

    original = Axes.set_title

    def set_title(self, label, *args, **kwargs):
        titles.append((label, kwargs.get('fontweight')))
        return original(self, label, *args, **kwargs)

    monkeypatch.setattr(Axes, 'set_title', set_title)
    draw_panel(*args, **kwargs)
    return titles


def colors_of(panel):
    codes = np.unique(panel.astype(np.int64) @ (65536, 256, 1))
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)


def test_panel_is_an_rgb_picture():
    panel = draw_panel(GREY, [view()], NAMES)
    assert panel.dtype == np.uint8
    assert panel.ndim == 3
    assert panel.shape[2] == 3


def test_predicted_classes_come_first_then_the_others_by_score(monkeypatch):
    predicted = view(scores=(0.1, 0.5, 0.9), predicted=(True, True, False))
    titles = drawn_titles(monkeypatch, GREY, [predicted], NAMES, title='photo.jpg')
    assert titles == [
        ('photo.jpg', None),
        ('dog\n0.50', 'bold'),
        ('cat\n0.10', 'bold'),
        ('a class with a name…\n0.90', 'normal'),
    ]


def test_titles_say_the_truth_where_it_is_known(monkeypatch):
    titles = drawn_titles(monkeypatch, GREY, [view()], NAMES, np.array([1, 0, -1]))
    assert [title for title, _ in titles[1:]] == [
        'dog\n0.90 absent',
        'a class with a name…\n0.40 unknown',
        'cat\n0.20 present',
    ]


def test_models_stand_side_by_side_in_the_first_ones_order(monkeypatch):
    after = view(scores=(0.7, 0.1, 0.1), predicted=(True, False, False), title='after')
    titles = drawn_titles(monkeypatch, GREY, [view(title='before'), after], NAMES)
    assert [title for title, _ in titles[1:]] == [
        'dog\nbefore: 0.90',
        'dog\nafter: 0.10',
        'a class with a name…\nbefore: 0.40',
        'a class with a name…\nafter: 0.10',
        'cat\nbefore: 0.20',
        'cat\nafter: 0.70',
    ]


def test_long_names_of_models_are_cut_to_their_end(monkeypatch):
    views = [view(title=f'best_multi-label_mAP_epoch_{epoch}') for epoch in (10, 20)]
    titles = drawn_titles(monkeypatch, GREY, views, NAMES)
    assert [title for title, _ in titles[1:3]] == [
        'dog\n…el_mAP_epoch_10: 0.90',
        'dog\n…el_mAP_epoch_20: 0.90',
    ]


def test_one_scale_for_all_classes():
    """A weak class has none of the colours that a strong one ends with."""
    maps = np.zeros((3, 2, 2), np.float32)
    maps[1], maps[0] = 10.0, 1.0
    high, low = (0.6 * np.array(colormaps[COLOR_MAP](x)[:3]) * 255 + 0.4 * 128 for x in (1.0, 0.1))
    colors = colors_of(draw_panel(GREY, [view(maps)], NAMES))

    def is_drawn(color):
        return (np.abs(colors - color) <= 2).all(1).any()

    assert is_drawn(high)
    assert is_drawn(low)
    maps[0] = 10.0
    colors = colors_of(draw_panel(GREY, [view(maps)], NAMES))
    assert not is_drawn(low)


@pytest.mark.parametrize(
    ('predicted', 'truth', 'color'),
    [
        ((True, False, False), (1, 0, 0), (44, 160, 44)),
        ((True, False, False), (0, 0, 0), (214, 39, 40)),
        ((False, False, False), (1, 0, 0), (255, 127, 14)),
        ((True, False, False), (-1, 0, 0), (31, 119, 180)),
    ],
)
def test_frames_tell_hits_from_misses(predicted, truth, color):
    panel = draw_panel(GREY, [view(predicted=predicted)], NAMES, np.array(truth))
    # Frames fill rows; the legend's letters do not.
    assert (panel == color).all(2).sum(1).max() > 50


def test_image_without_any_evidence_is_drawn():
    draw_panel(GREY, [view(np.zeros((3, 1, 1)))], NAMES)


@pytest.mark.parametrize(
    ('tiles', 'views', 'columns'),
    [(1, 1, 1), (4, 1, 2), (11, 1, 4), (81, 1, 12), (11, 2, 3), (2, 2, 2)],
)
def test_rows_are_as_full_as_can_be(tiles, views, columns):
    assert _num_columns(tiles, views) == columns


def test_eighty_classes_stay_readable():
    """Eighty tiles at least 100 pixels wide, and no picture of unbounded size."""
    names = [f'class {i}' for i in range(80)]
    many = MapView(np.zeros((80, 7, 7)), np.zeros(80), np.zeros(80, bool))
    panel = draw_panel(np.zeros((224, 224, 3), np.uint8), [many], names)
    assert 12 * 100 < panel.shape[1] < 3000


def test_numbers_that_differ_are_refused():
    with pytest.raises(ValueError, match=r'as many maps, .* but got \[2, 3, 3, 3\]'):
        draw_panel(GREY, [view()], NAMES[:2])
    with pytest.raises(ValueError, match=r'truths .* got \[3, 3, 3, 3, 1\]'):
        draw_panel(GREY, [view()], NAMES, np.zeros(1))


def test_maps_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match='finite class maps'):
        draw_panel(GREY, [view(np.full((3, 2, 2), np.nan))], NAMES)


def test_packed_images_turn_into_rgb():
    blue_in_bgr = torch.zeros(3, 4, 5, dtype=torch.uint8)
    blue_in_bgr[0] = 255
    rgb = packed_to_rgb(blue_in_bgr, SimpleNamespace(to_rgb=True))
    assert rgb.shape == (4, 5, 3)
    assert rgb[0, 0].tolist() == [0, 0, 255]
    assert packed_to_rgb(blue_in_bgr, SimpleNamespace(to_rgb=False))[0, 0].tolist() == [255, 0, 0]
    grey = torch.full((1, 4, 5), 9, dtype=torch.uint8)
    assert packed_to_rgb(grey, SimpleNamespace(to_rgb=True))[0, 0].tolist() == [9, 9, 9]
