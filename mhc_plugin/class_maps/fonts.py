"""Fonts that have the characters of names, whatever language they are in."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties

# Characters that change others and have no picture of their own.
_INVISIBLE = ('Cc', 'Cf', 'Mn', 'Zs', 'Zl', 'Zp')
_ADVICE = (
    # Beginnings of the names of characters, and what has them.
    (('CJK', 'HIRAGANA', 'KATAKANA', 'HANGUL'), 'Noto Sans CJK (Debian: fonts-noto-cjk)'),
    (('ARABIC', 'HEBREW', 'DEVANAGARI', 'THAI'), 'Noto Sans (Debian: fonts-noto-core)'),
    (('',), 'Noto Sans or Symbola (Debian: fonts-noto-core, fonts-symbola)'),
)
_told: set[str] = set()


def font_families(texts: Iterable[str], default: str = 'sans-serif') -> list[str]:
    """Choose the fonts to write texts with: the default one, and others for what it has not.

    Characters that no font of this machine has are said once in a warning that names a font.

    Args:
        texts (Iterable[str]): The texts.
        default (str): The family to begin with. Defaults to matplotlib's ``'sans-serif'``.

    Returns:
        list[str]: Families for ``fontfamily`` of matplotlib, which asks them in this order.
    """
    characters = frozenset(c for c in set().union(*texts) if not _is_invisible(c))
    families, missing = _cover(characters, default)
    untold = sorted(missing - _told)
    if untold:
        _told.update(untold)
        name = unicodedata.name(untold[0], '')
        font = next(font for starts, font in _ADVICE if name.startswith(starts))
        warnings.warn(
            f'No font of this machine has {" ".join(untold)}: pictures have boxes in their '
            f'places. Install one that has, such as {font}.',
            stacklevel=3,
        )
    return list(families)


@contextmanager
def missing_glyphs_were_told() -> Iterator[None]:
    """Leave out matplotlib's warning for each glyph, of which :func:`font_families` has told."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)
        yield


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE


@lru_cache(maxsize=256)
def _cover(characters: frozenset[str], default: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have the characters, and those that none has."""
    families = [default]
    missing = characters - _characters_of(font_manager.findfont(FontProperties(family=[default])))
    if missing:
        _look_for_new_fonts()
        # The font of last resort, which matplotlib brings, has boxes for all characters.
        fonts = [f for f in font_manager.fontManager.ttflist if 'Last Resort' not in f.name]
        fonts.sort(key=_plainness)
        while missing:
            # Most of it in one font looks best; the plainest of those that have as much.
            best = max(fonts, key=lambda font: len(missing & _characters_of(font.fname)))
            found = missing & _characters_of(best.fname)
            if not found:
                break
            families.append(best.name)
            missing -= found
    return tuple(families), frozenset(missing)


@lru_cache(maxsize=4096)
def _characters_of(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except Exception:  # a file that FreeType cannot read has nothing for us
        return frozenset()


@lru_cache(maxsize=1)
def _look_for_new_fonts() -> None:
    """Let matplotlib know of fonts that were installed after it made its list."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            try:
                font_manager.fontManager.addfont(path)
            except Exception:  # bitmaps, and what is no font
                continue


def _plainness(font: font_manager.FontEntry) -> tuple:
    return (font.style != 'normal', abs(_weight(font.weight) - 400), 'Noto' not in font.name)


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)
