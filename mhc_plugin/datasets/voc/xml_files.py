"""PASCAL VOC's annotation files, read without trust: no DTD, no entities, bounded size."""

import math
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from xml.sax import SAXException, SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException
from defusedxml.sax import parseString

from mhc_plugin.datasets.annotation_files import AnnotationError

# VOC's largest file has some 30 kB and five levels.
MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 32
MAX_TEXT = 1024

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_PARENTS = {'object', 'object/bndbox', 'size'}
_WANTED = {
    'object/name',
    'object/difficult',
    *(f'object/bndbox/{c}' for c in _CORNERS),
    'size/width',
    'size/height',
}


class VOCObject(NamedTuple):
    """One ``<object>`` of a VOC annotation.

    Attributes:
        name (str): The class.
        difficult (bool): False where the file does not say.
        box (tuple, optional): x1, y1, x2, y2 in pixels, 0-based edges: VOC counts pixels from 1
            and both ends belong to the box, so x1 = xmin - 1 and x2 = xmax. None where the file
            gives none.
        line (int): Where the object begins.
    """

    name: str
    difficult: bool
    box: tuple[float, float, float, float] | None
    line: int


class VOCAnnotation(NamedTuple):
    """What a VOC annotation says of an image.

    Attributes:
        objects (list[VOCObject]): The objects.
        size (tuple, optional): Width and height of the image in which the boxes were drawn; None
            where the file gives none, or 0.
    """

    objects: list[VOCObject]
    size: tuple[float, float] | None


def read_voc_xml(path: str | PathLike) -> VOCAnnotation:
    """Read one annotation file.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If the file is not a fit VOC annotation; it names file and line.
    """
    with Path(path).open('rb') as file:
        content = file.read(MAX_BYTES + 1)
    return parse_voc_xml(content, path)


def parse_voc_xml(content: bytes, path: str | PathLike | None = None) -> VOCAnnotation:
    """Read one annotation.

    Args:
        content (bytes): The file's content.
        path (str | PathLike, optional): The file's name, for errors.

    Raises:
        AnnotationError: If the content is not a fit VOC annotation.
    """
    if len(content) > MAX_BYTES:
        raise AnnotationError(f'The annotation is larger than {MAX_BYTES} bytes.', path)
    handler = _AnnotationHandler(path)
    try:
        parseString(content, handler, forbid_dtd=True)
    except AnnotationError:
        raise
    except DefusedXmlException as error:
        raise AnnotationError(
            f'Expected XML without a DTD and without entities, but got {error}.', path, handler.line
        ) from None
    except SAXParseException as error:
        raise AnnotationError(
            f'The XML is broken: {error.getMessage()}.', path, error.getLineNumber()
        ) from None
    # Expat meets encodings that Python does not know, or cannot map byte by byte.
    except (SAXException, ValueError, LookupError) as error:
        raise AnnotationError(f'The XML cannot be read: {error}.', path, handler.line) from None
    return VOCAnnotation(handler.objects, handler.size)


class _AnnotationHandler(ContentHandler):
    """Collect the size, and name, difficult and box of every object that is a child of the root.

    Only text at the wanted places is kept; a person's ``<part>``, which has a name and a box of
    its own, lies deeper and is passed over.
    """

    def __init__(self, path: str | PathLike | None) -> None:
        super().__init__()
        self.objects: list[VOCObject] = []
        self.size: tuple[float, float] | None = None
        self._path = path
        self._locator = None
        self._places: list[str | None] = []
        self._text: list[str] | None = None
        self._text_size = 0
        self._fields: dict[str, tuple[str, int]] = {}
        self._object_line = 0

    @property
    def line(self) -> int | None:
        return None if self._locator is None else self._locator.getLineNumber()

    def setDocumentLocator(self, locator) -> None:
        self._locator = locator

    def startElement(self, name: str, attrs) -> None:
        if len(self._places) == MAX_DEPTH:
            raise self._error(f'Elements are nested deeper than {MAX_DEPTH}.')
        place = self._place(name)
        self._places.append(place)
        if place in ('object', 'size'):
            self._fields = {}
            self._object_line = self.line
        elif place in _WANTED:
            self._text, self._text_size = [], 0

    def _place(self, name: str) -> str | None:
        """Path below the root, whose own name does not matter; None where nothing is wanted."""
        if not self._places:
            return ''
        parent = self._places[-1]
        if parent == '':
            return name
        return f'{parent}/{name}' if parent in _PARENTS else None

    def characters(self, content: str) -> None:
        if self._text is None:
            return
        self._text_size += len(content)
        if self._text_size > MAX_TEXT:
            tag = self._places[-1].rpartition('/')[2]
            raise self._error(f'<{tag}> holds more than {MAX_TEXT} characters.')
        self._text.append(content)

    def endElement(self, name: str) -> None:
        place = self._places.pop()
        if place == 'object':
            self.objects.append(self._finish_object())
        elif place == 'size':
            self.size = self._finish_size()
        elif place in _WANTED and self._text is not None:
            self._fields[name] = (''.join(self._text).strip(), self.line)
            self._text = None

    def _finish_object(self) -> VOCObject:
        name, _ = self._fields.get('name', ('', 0))
        if not name:
            raise self._error(
                'Expected every <object> to have a <name>, but this one has none.',
                self._object_line,
            )
        return VOCObject(name, self._difficult(), self._box(), self._object_line)

    def _finish_size(self) -> tuple[float, float] | None:
        sides = [self._number(side) for side in ('width', 'height') if side in self._fields]
        return (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None

    def _difficult(self) -> bool:
        text, line = self._fields.get('difficult', ('0', 0))
        if text not in ('0', '1'):
            raise self._error(f'Expected <difficult> to be 0 or 1, but got {text!r}.', line)
        return text == '1'

    def _box(self) -> tuple[float, float, float, float] | None:
        missing = [corner for corner in _CORNERS if corner not in self._fields]
        if len(missing) == len(_CORNERS):
            return None
        if missing:
            raise self._error(
                f'Expected <bndbox> to have {", ".join(_CORNERS)}, but '
                f'{", ".join(missing)} is missing.',
                self._object_line,
            )
        x1, y1, x2, y2 = (self._number(corner) for corner in _CORNERS)
        if x2 < x1 or y2 < y1:
            raise self._error(
                'Expected <bndbox> to have xmin <= xmax and ymin <= ymax, but got '
                f'{x1:g}, {y1:g}, {x2:g}, {y2:g}.',
                self._object_line,
            )
        return x1 - 1, y1 - 1, x2, y2

    def _number(self, field: str) -> float:
        text, line = self._fields[field]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Beyond 2 ** 24 a float32 no longer tells neighbouring pixels apart.
        if not abs(value) < 2**24:
            raise self._error(
                f'Expected <{field}> to be a number of pixels, but got {text!r}.', line
            )
        return value

    def _error(self, message: str, line: int | None = None) -> AnnotationError:
        return AnnotationError(message, self._path, line or self.line)
