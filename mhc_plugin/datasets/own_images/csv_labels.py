"""Multi-label datasets from CSV files: lists of labels, or a column of 0 and 1 for each class."""

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from operator import itemgetter

from mmengine.logging import MMLogger
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import AnnotationError, check_path, read_text
from mhc_plugin.datasets.class_lists import near_names, read_class_list, shown
from mhc_plugin.datasets.image_files import find_listed_images
from mhc_plugin.datasets.targets import MultiLabelTargets
from mhc_plugin.functional.checks import check_argument

_SEPARATORS = (',', ';', '\t')
# How the column of files is called by others; a bare "id" where there is no better.
_FILE_COLUMN = re.compile(r'(file|image|img|picture|photo)[ _-]?(name|path|file|id)?|path', re.I)
_ID_COLUMN = re.compile(r'id', re.I)
_VALUES = {
    **dict.fromkeys(('0', '0.0'), 0),
    **dict.fromkeys(('1', '1.0'), 1),
    **dict.fromkeys(('-1', '-1.0', ''), -1),
}


@DATASETS.register_module()
class CSVMultiLabelDataset(MultiLabelTargets, BaseDataset):
    """Images and their labels from a CSV file.

    The first line names the columns, which are separated by ``,``, ``;`` or a tab. There are two
    forms. One has ``file``, the path of an image below ``data_prefix``; ``labels``, names of
    classes with a separator between them, or nothing; and, if wanted, ``unknown_labels``, in the
    same way, the classes of which nothing is known::

        file,labels,unknown_labels
        a.jpg,cat|dog,
        b.jpg,,horse

    The other has a column for each class: 1 where it is there, 0 where not, and -1 or nothing where
    that is not known. The file is in the first column, or in one called ``image``, ``filename``
    or the like::

        image,cat,dog,horse
        a.jpg,1,1,0
        b.jpg,0,0,

    Other columns are not read, and are named once. So are images that are not there.

    Args:
        ann_file (str): Path of the CSV file, UTF-8 or UTF-16, below ``data_root`` if relative.
        classes (Sequence[str] | str, optional): Names of the classes, or a file with one a line.
            Defaults to None, which means all columns but that of the file, in their order; the
            first form needs them.
        label_separator (str): What stands between two labels. Defaults to '|'.
        missing_images (str): What becomes of images that are not on disk: 'skip' leaves them out,
            'error' refuses the file. Defaults to 'skip'.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If an argument does not fit.
        AnnotationError: If the file is not such a CSV, with the line; or if no image is left.
    """

    def __init__(
        self,
        ann_file: str,
        classes: Sequence[str] | str | None = None,
        label_separator: str = '|',
        missing_images: str = 'skip',
        **kwargs,
    ) -> None:
        check_argument(bool(label_separator), 'label_separator', 'to be a text', "''")
        self.label_separator = label_separator
        self.missing_images = missing_images
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images of the file that are there, in its order."""
        check_path(self.ann_file, 'ann_file')
        table = _Table(self.ann_file)
        in_lists = table.place('labels') is not None and not table.has_columns_of(self.CLASSES)
        kind = _ListReader if in_lists else _ColumnReader
        reader = kind(table, self.CLASSES, self.label_separator)
        names, lines, labels = [], [], []
        for line, row in table.rows():
            names.append(row[reader.file_place].strip())
            lines.append(line)
            labels.append(reader.read(row, line))
        self._metainfo['classes'] = reader.classes
        table.warn_of_others(reader.places)
        paths = find_listed_images(
            names, self.ann_file, self.img_prefix, self.missing_images, lines
        )
        return [
            dict(img_path=path, gt_label=positives, unknown_label=unknown)
            for path, (positives, unknown) in zip(paths, labels)
            if path is not None
        ]


class _Table:
    """The columns of a CSV file by name, and its rows with their lines."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._text = read_text(path)
        first = next((line for line in self._text.splitlines() if line.strip()), '')
        bare = re.sub('"[^"]*"', '', first)
        self._separator = max(_SEPARATORS, key=bare.count)
        self.columns = [name.strip() for name in next(self._records(), (0, []))[1]]

    def error(self, message: str, line: int | None = None) -> AnnotationError:
        return AnnotationError(message, self.path, line)

    def place(self, *names: str) -> int | None:
        """Where the column is that has one of these names, whatever its capitals."""
        places = [i for i, column in enumerate(self.columns) if column.lower() in names]
        if len(places) > 1:
            raise self.error(
                f'Expected one column `{names[0]}`, but the first line names '
                f'{shown([self.columns[i] for i in places])}.',
                1,
            )
        return places[0] if places else None

    def file_place(self, others: set[str]) -> int | None:
        """Where the column of files is, which is none of ``others``."""
        for pattern in (re.compile('file', re.I), _FILE_COLUMN, _ID_COLUMN):
            for i, column in enumerate(self.columns):
                if column not in others and pattern.fullmatch(column):
                    return i
        return None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line and fields of every row that is not blank, after the first."""
        records = self._records()
        next(records)
        for line, row in records:
            if len(row) == len(self.columns):
                yield line, row
            elif any(row):
                raise self.error(
                    f'Expected {len(self.columns)} fields, as the first line has, but got '
                    f'{len(row)}.',
                    line,
                )

    def has_columns_of(self, classes: Sequence[str] | None) -> bool:
        """Whether there is a column of 0 and 1 for each class, by the first row."""
        if classes is None or not set(classes) <= set(self.columns):
            return False
        _, row = next(self.rows(), (0, None))
        return row is None or all(
            row[self.columns.index(name)].strip() in _VALUES for name in classes
        )

    def warn_of_others(self, read: Sequence[int]) -> None:
        """Name the columns that are not read."""
        others = [name or '(no name)' for i, name in enumerate(self.columns) if i not in read]
        if others:
            MMLogger.get_current_instance().warning(
                f'{self.path}: columns that are not read: {shown(others)}.'
            )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(self._text, newline=''), delimiter=self._separator)
        try:
            for row in reader:
                if any(field.strip() for field in row):
                    yield reader.line_num, row
        except csv.Error as error:
            raise self.error(f'Reading the CSV failed: {error}.', reader.line_num) from None


class _ListReader:
    """Labels as lists of names."""

    def __init__(self, table: _Table, classes: Sequence[str] | None, label_separator: str) -> None:
        check_argument(
            classes is not None,
            'classes',
            f"to name the classes of '{table.path}', whose column `labels` does not say in which "
            'order they are',
            'none',
        )
        for name in classes:
            check_argument(
                label_separator not in name,
                'label_separator',
                'to be in no name of `classes`',
                f'{label_separator!r}, which is in {name!r}',
            )
        self.classes = tuple(classes)
        self.file_place = table.file_place(set(classes))
        if self.file_place is None:
            raise table.error(
                f'Expected the columns `file` and `labels`, but got {shown(table.columns)}.', 1
            )
        self._table = table
        self._separator = label_separator
        self._index = {name: i for i, name in enumerate(classes)}
        self._labels = table.place('labels')
        self._unknown = table.place('unknown_labels', 'unknown_label')
        self._single = {
            i: self._index[name]
            for i, name in enumerate(table.columns)
            if name in self._index and i not in (self.file_place, self._labels, self._unknown)
        }
        self.places = {self.file_place, self._labels, self._unknown, *self._single}
        if self._unknown is None:
            _refuse_near(table, 'unknown_labels', self.places)

    def read(self, row: Sequence[str], line: int) -> tuple[list[int], list[int]]:
        positives = self._indices(row[self._labels], line)
        unknown = [] if self._unknown is None else self._indices(row[self._unknown], line)
        if unknown and set(positives) & set(unknown):
            both = [self.classes[i] for i in positives if i in unknown]
            raise self._table.error(
                f'Expected a class to be either there or unknown, but {shown(both)} is both.', line
            )
        for place, label in self._single.items():
            said = _VALUES.get(row[place].strip())
            if said in (0, 1) and said != (label in positives) and label not in unknown:
                raise self._table.error(
                    f'Expected the columns `labels` and `{self.classes[label]}` to say the same, '
                    f'but got {row[self._labels]!r} and {row[place]!r}.',
                    line,
                )
        return positives, unknown

    def _indices(self, text: str, line: int) -> list[int]:
        if not text:
            return []
        index = self._index
        found = set()
        for name in text.split(self._separator):
            label = index.get(name)
            if label is None:
                name = unicodedata.normalize('NFC', name.strip())
                if not name:
                    continue
                label = index.get(name)
            if label is None:
                raise self._table.error(
                    f'Expected labels to be among `classes`, {shown(self.classes)}, separated by '
                    f'{self._separator!r}, but got {name!r}{near_names(name, self.classes)}.',
                    line,
                )
            found.add(label)
        return sorted(found)


class _ColumnReader:
    """Labels as a column for each class."""

    def __init__(self, table: _Table, classes: Sequence[str] | None, label_separator: str) -> None:
        self._table = table
        self._separator = label_separator
        self._labels = table.place('labels')
        columns = [unicodedata.normalize('NFC', name) for name in table.columns]
        known = set(classes or ())
        if len(columns) < 2:
            raise table.error(
                'Expected the columns `file` and `labels`, or one of files and one for each '
                f'class, separated by a comma, a semicolon or a tab, but got {shown(columns)}.',
                1,
            )
        self.file_place = table.file_place(known) or 0
        if classes is None or not known <= set(columns):
            _refuse_near(table, 'labels', {self.file_place}, cutoff=0.9)
        if classes is None:
            classes = [name for i, name in enumerate(columns) if name and i != self.file_place]
        try:
            self.classes = read_class_list(classes)
        except ValueError as error:
            raise table.error(str(error), 1) from None
        missing = [name for name in self.classes if columns.count(name) != 1]
        if missing:
            name = missing[0]
            count = columns.count(name)
            raise table.error(
                'Expected the columns `file` and `labels`, or one column for each of `classes`, '
                f'{shown(self.classes)}, but the first line names {name!r} '
                f'{"more than once" if count else "not"}'
                f'{"" if count else near_names(name, columns)}: {shown(columns)}.',
                1,
            )
        places = [columns.index(name) for name in self.classes]
        self.places = {self.file_place, *places}
        # itemgetter gives a single field bare.
        self._pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)

    def read(self, row: Sequence[str], line: int) -> tuple[list[int], list[int]]:
        positives, unknown = [], []
        for label, text in enumerate(self._pick(row)):
            value = _VALUES.get(text)
            if value is None:
                value = _VALUES.get(text.strip())
            if value is None:
                raise self._table.error(
                    'Expected 1 (there), 0 (not there), -1 or nothing (unknown) in the column '
                    f'{self.classes[label]!r}, but got {text!r}; `classes` names the columns that '
                    'are classes.',
                    line,
                )
            if value == 1:
                positives.append(label)
            elif value == -1:
                unknown.append(label)
        if self._labels is not None:
            self._check_list(row[self._labels], positives, unknown, line)
        return positives, unknown

    def _check_list(
        self, text: str, positives: Sequence[int], unknown: Sequence[int], line: int
    ) -> None:
        """Refuse a column `labels` that is a list of classes and says otherwise."""
        listed = {name.strip() for name in text.split(self._separator)} - {''}
        there, maybe = ({self.classes[i] for i in labels} for labels in (positives, unknown))
        if listed <= set(self.classes) and not there <= listed <= there | maybe:
            raise self._table.error(
                'Expected the column `labels` and those of the classes to say the same, but got '
                f'{text!r} and {shown(sorted(there))}.',
                line,
            )


def _refuse_near(table: _Table, name: str, read: set[int | None], cutoff: float = 0.6) -> None:
    """Refuse a column whose name is that of an important one but for a slip."""
    for i, column in enumerate(table.columns):
        if i not in read and difflib.get_close_matches(column.lower(), [name], cutoff=cutoff):
            raise table.error(
                f'Expected no column with nearly the name of `{name}`, but got {column!r}: did you '
                f'mean `{name}`?',
                1,
            )
