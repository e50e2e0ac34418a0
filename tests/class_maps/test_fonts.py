import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from mhc_plugin.class_maps import fonts
from mhc_plugin.class_maps.fonts import font_families
from mhc_plugin.class_maps.panels import MapView, draw_panel

# Private characters, which no font of a system has.
CAT, DOG, OWL = '\ue9f1', '\ue9f2', '\ue9f3'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a font of solid rectangles for some characters, and let it be found as a system's."""
    installed = []

    def make(family, characters):
        names = [f'g{ord(c):x}' for c in characters]
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for point in ((0, 700), (900, 700), (900, 0)):
            pen.lineTo(point)
        pen.closePath()
        builder = FontBuilder(1000)
        builder.setupGlyphOrder(['.notdef', *names])
        builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names)})
        empty = TTGlyphPen(None).glyph()
        builder.setupGlyf({'.notdef': empty, **{name: pen.glyph() for name in names}})
        builder.setupHorizontalMetrics(dict.fromkeys(['.notdef', *names], (1000, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable(dict(familyName=family, styleName='Regular'))
        builder.setupOS2(usWeightClass=400)
        builder.setupPost()
        path = tmp_path / f'{family}.ttf'
        builder.save(path)
        installed.append(str(path))

    found = list(font_manager.findSystemFonts())
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: found + installed)
    monkeypatch.setattr(font_manager.fontManager, 'ttflist', [*font_manager.fontManager.ttflist])
    monkeypatch.setattr(fonts, '_told', set())
    for cached in (fonts._cover, fonts._look_for_new_fonts):
        cached.cache_clear()
    yield make
    for cached in (fonts._cover, fonts._look_for_new_fonts):
        cached.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def test_names_in_latin_need_no_other_font(install, no_warnings):
    install('Some', [CAT])
    assert font_families(['dog', 'Straße', 'Ж', 'a\u200db', '']) == ['sans-serif']


def test_fonts_of_the_system_are_asked_for_what_is_missing(install, no_warnings):
    install('Small', [CAT])
    install('Large', [CAT, DOG])
    install('Other', [OWL])
    assert font_families([f'a{CAT}', DOG]) == ['sans-serif', 'Large']
    assert font_families([OWL, DOG, CAT], 'monospace') == ['monospace', 'Large', 'Other']


def test_what_no_font_has_is_said_once(install):
    install('Some', [CAT])
    with pytest.warns(UserWarning, match=f'No font of this machine has {OWL}: .* Install one'):
        assert font_families([CAT, OWL]) == ['sans-serif', 'Some']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        font_families([CAT, OWL])
        font_families([OWL])


@pytest.mark.parametrize(
    ('character', 'advice'),
    [('\u732b', 'fonts-noto-cjk'), ('\ud55c', 'fonts-noto-cjk'), ('\U00013000', 'fonts-noto-core')],
)
def test_advice_fits_the_script(install, monkeypatch, character, advice):
    monkeypatch.setattr(fonts, '_characters_of', lambda path: frozenset('abc'))
    with pytest.warns(UserWarning, match=advice):
        font_families([character])


def draw(name):
    view = MapView(np.ones((1, 2, 2)), np.array([0.5]), np.array([True]))
    return draw_panel(np.zeros((8, 8, 3), np.uint8), [view], [name])


def test_panels_draw_the_glyphs(install):
    with pytest.warns(UserWarning, match='No font') as caught:
        boxes = draw(CAT * 3)
    assert len(caught) == 1
    fonts._look_for_new_fonts.cache_clear()
    fonts._cover.cache_clear()
    install('Some', [CAT])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        glyphs = draw(CAT * 3)
    # Solid rectangles are darker than the outlines of boxes.
    assert glyphs.mean() < boxes.mean()
