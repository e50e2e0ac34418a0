"""Files of images: found by the names that lists give them, and how they are turned."""

import os
import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmengine.logging import MMLogger
from PIL import Image, UnidentifiedImageError

from mhc_plugin.functional.checks import check_choice

from .annotation_files import AnnotationError
from .class_lists import shown

# Of several images with one name, the first of these endings is taken.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm')

_EXIF_ORIENTATION = 0x0112
# What shows a stored image upright: transpose it, then mirror left and right, then up and down.
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def can_be_read(path: str) -> bool:
    """Whether a file is an image; one that is not there speaks for itself."""
    try:
        content = fileio.get(path)
    except Exception:  # each backend has its own
        return True
    try:
        return bool(content) and mmcv.imfrombytes(content) is not None
    except Exception:  # cv2.error and others
        return False


class ImageHeader(NamedTuple):
    """Size and orientation of an image.

    Attributes:
        size (tuple[int, int]): Width and height as it is stored.
        orientation (int): EXIF's orientation, 1 to 8; 1 is upright.
    """

    size: tuple[int, int]
    orientation: int

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as it is shown, and read by OpenCV."""
        return self.size[::-1] if _TURNS[self.orientation][0] else self.size

    def turn(self, corners: np.ndarray) -> np.ndarray:
        """Turn boxes with the image.

        Args:
            corners (np.ndarray): ``(n, 4)``: x1, y1, x2, y2 in 0..1 of the image as it is stored.

        Returns:
            np.ndarray: The same boxes in 0..1 of the image as it is shown.
        """
        transposed, mirrored_x, mirrored_y = _TURNS[self.orientation]
        x1, y1, x2, y2 = corners.T
        if transposed:
            x1, y1, x2, y2 = y1, x1, y2, x2
        if mirrored_x:
            x1, x2 = 1 - x2, 1 - x1
        if mirrored_y:
            y1, y2 = 1 - y2, 1 - y1
        return np.stack([x1, y1, x2, y2], axis=1)


def read_image_header(path: str) -> ImageHeader:
    """Read size and orientation of an image, and not its pixels.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If it is no image.
    """
    try:
        with Image.open(Path(path)) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            return ImageHeader(image.size, orientation if orientation in _TURNS else 1)
    except UnidentifiedImageError:
        raise AnnotationError('The image cannot be read.', path) from None


class ImageFolder:
    """The images below a folder, each of whose folders is listed once.

    Takes some hundred bytes an image as long as it lives.

    Args:
        root (str): The folder; one on a remote storage is not looked into.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.is_remote = '://' in root
        self._listings: dict[str, dict[str, str]] = {}
        self._stems: dict[str, dict[str, str]] = {}

    def path(self, name: str) -> str:
        """Path of an image; names may be absolute paths."""
        return (
            f'{self.root.rstrip("/")}/{name}' if self.is_remote else os.path.join(self.root, name)
        )

    def find(self, name: str) -> str | None:
        """The image as it is on disk.

        Args:
            name (str): Path below the root. Its accents may be written in another of Unicode's
                forms than that of the file, and its ending may be left out.

        Returns:
            str: The name with which :meth:`path` leads to a file, without detours such as
            ``./``; None if there is no such file.
        """
        if name.startswith('.') or '/.' in name or '//' in name:
            name = posixpath.normpath(name)
        folder, _, file = name.rpartition('/')
        if self.is_remote:
            return name
        found = self._listing(folder).get(file)
        if found is None:
            composed = unicodedata.normalize('NFC', file)
            found = self._listing(folder).get(composed)
            if found is None and not file.lower().endswith(SUFFIXES):
                found = self._by_stem(folder).get(composed)
        if found is None:
            # As Windows writes it.
            return self.find(name.replace('\\', '/')) if '\\' in name else None
        return f'{folder}/{found}' if folder else found

    def _listing(self, folder: str) -> dict[str, str]:
        """Files of one folder, by their own names and by the composed forms of these."""
        if folder not in self._listings:
            try:
                files = os.listdir(os.path.join(self.root, folder or '.'))
            except OSError:
                files = []
            composed = {unicodedata.normalize('NFC', file): file for file in files}
            self._listings[folder] = composed | {file: file for file in files}
        return self._listings[folder]

    def _by_stem(self, folder: str) -> dict[str, str]:
        """Images of one folder by their composed names without endings."""
        if folder not in self._stems:
            stems = {}
            for composed, file in self._listing(folder).items():
                stem, ending = os.path.splitext(composed)
                if ending.lower() in SUFFIXES:
                    rank = SUFFIXES.index(ending.lower()), file
                    stems[stem] = min(stems.get(stem, rank), rank)
            self._stems[folder] = {stem: file for stem, (_, file) in stems.items()}
        return self._stems[folder]


def find_listed_images(
    names: Sequence[str],
    ann_file: str,
    img_prefix: str,
    missing_images: str = 'skip',
    lines: Sequence[int] | None = None,
) -> list[str | None]:
    """Paths of the images of a list; None for those that are not there, which are named once.

    Args:
        names (Sequence[str]): Paths below ``img_prefix``.
        ann_file (str): The file that lists them.
        img_prefix (str): Folder of the images.
        missing_images (str): 'skip' leaves out images that are not there, 'error' refuses them.
            Defaults to 'skip'.
        lines (Sequence[int], optional): Line of each in the file. Defaults to None: they are
            counted from 1.

    Raises:
        AnnotationError: If a name is empty, if two are those of one image, or if no image is left.
    """
    check_choice('missing_images', missing_images, ('skip', 'error'))
    folder = ImageFolder(img_prefix)
    seen: dict[str, int] = {}
    paths, missing = [], []
    for place, name in enumerate(names):
        line = lines[place] if lines else None
        if not name:
            raise AnnotationError('Expected the name of an image, but got none.', ann_file, line)
        found = folder.find(name)
        first = seen.setdefault(name if found is None else found, place)
        if first != place:
            where = f'in line {lines[first]}' if lines else f'as image {first + 1}'
            here = '' if lines else f' is image {place + 1} and'
            raise AnnotationError(
                f'Expected each image once, but {name!r}{here} stands {where}, too.', ann_file, line
            )
        if found is None:
            missing.append(name)
            if missing_images == 'error':
                raise AnnotationError(
                    f"Expected image {name!r} to be in '{img_prefix}', but it is not.",
                    ann_file,
                    line,
                )
        paths.append(None if found is None else folder.path(found))
    if len(missing) == len(paths):
        raise AnnotationError(
            f"Expected images in '{img_prefix}', but none of the {len(paths):,} that the file "
            f'lists is there, such as {missing[0]!r}; set `data_prefix`.'
            if paths
            else 'Expected images, but the file lists none.',
            ann_file,
        )
    if missing:
        MMLogger.get_current_instance().warning(
            f"{ann_file}: {len(missing):,} of {len(paths):,} images are not in '{img_prefix}' and "
            f'are left out: {shown(missing)}.'
        )
    return paths
