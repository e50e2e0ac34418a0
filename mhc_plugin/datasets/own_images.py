"""Multi-label datasets of your own: OpenMMLab's JSON, or a CSV of files and labels."""

import csv
from collections.abc import Sequence

from mmengine.fileio import join_path
from mmpretrain.datasets import BaseDataset, MultiLabelDataset
from mmpretrain.registry import DATASETS

from .annotation_files import check_path
from .targets import MultiLabelTargets


@DATASETS.register_module()
class JSONMultiLabelDataset(MultiLabelTargets, MultiLabelDataset):
    """MMPretrain's ``MultiLabelDataset`` with ``gt_score`` and with unknown labels.

    The file is OpenMMLab's multi-label JSON. An image may say of which classes nothing is
    known; they take no part in loss and metrics::

        {
          "metainfo": {"classes": ["cat", "dog", "horse"]},
          "data_list": [
            {"img_path": "a.jpg", "gt_label": [0, 1]},
            {"img_path": "b.jpg", "gt_label": [], "unknown_label": [2]}
          ]
        }

    Args:
        ann_file (str): Path of the JSON file, below ``data_root`` if relative.
        classes (Sequence[str], optional): Names of the classes; needed where the file has
            none, else they must be those of the file. Defaults to None.
        **kwargs: Other arguments of MMPretrain's ``MultiLabelDataset``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If there are no class names or two different lists of them, or if labels
            are not indices of classes.
    """

    def __init__(self, ann_file: str, classes: Sequence[str] | str | None = None, **kwargs) -> None:
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images of the file, their labels checked."""
        check_path(self.ann_file, 'ann_file')
        given = self._metainfo.pop('classes', None)
        data_list = super().load_data_list()
        self._metainfo['classes'] = self._agreed_classes(given, _stored_classes(self._metainfo))
        for info in data_list:
            _check_labels(info, len(self._metainfo['classes']), self.ann_file)
        return data_list

    def _agreed_classes(
        self, given: Sequence[str] | None, stored: Sequence[str] | None
    ) -> tuple[str, ...]:
        if given is None and stored is None:
            raise ValueError(
                f'Expected class names in argument `classes` or in the metainfo of '
                f"'{self.ann_file}', but neither has them."
            )
        if given is not None and stored is not None and tuple(given) != tuple(stored):
            raise ValueError(
                f"Expected argument `classes` to be the classes of '{self.ann_file}' in their "
                f'order, {list(stored)}, but got {list(given)}.'
            )
        return tuple(stored if given is None else given)


@DATASETS.register_module()
class CSVMultiLabelDataset(MultiLabelTargets, BaseDataset):
    """Images and their labels from a CSV file.

    The first line names the columns: ``file``, the path of an image below ``data_prefix``;
    ``labels``, names of classes with a separator between them, or nothing; and, if wanted,
    ``unknown_labels``, in the same way, the classes of which nothing is known. Other columns
    are not read::

        file,labels,unknown_labels
        a.jpg,cat|dog,
        b.jpg,,horse

    Args:
        ann_file (str): Path of the CSV file, UTF-8, below ``data_root`` if relative.
        classes (Sequence[str] | str): Names of the classes, or a file with one a line.
        label_separator (str): What stands between two labels. Defaults to '|'.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is not such a CSV; the sentence names file and line.
    """

    def __init__(
        self, ann_file: str, classes: Sequence[str] | str, label_separator: str = '|', **kwargs
    ) -> None:
        if not label_separator:
            raise ValueError("Expected argument `label_separator` to be a text, but got ''.")
        self.label_separator = label_separator
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images of the file, in its order."""
        check_path(self.ann_file, 'ann_file')
        try:
            with open(self.ann_file, encoding='utf-8-sig', newline='') as file:
                return self._read(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"Expected '{self.ann_file}' to be a CSV file in UTF-8, but reading it failed: "
                f'{error}.'
            ) from error

    def _read(self, reader: csv.DictReader) -> list[dict]:
        columns = list(reader.fieldnames or [])
        if not {'file', 'labels'} <= set(columns):
            raise ValueError(
                f"Expected '{self.ann_file}' to name the columns `file` and `labels` in its first "
                f'line, separated by a comma, but got {columns}.'
            )
        lines: dict[str, int] = {}
        data_list = []
        for row in reader:
            where = f"'{self.ann_file}', line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f'{where}: expected {len(columns)} fields, as the first line has.')
            if row['file'] in lines:
                raise ValueError(
                    f"{where}: expected each image once, but '{row['file']}' stands in line "
                    f'{lines[row["file"]]}, too.'
                )
            lines[row['file']] = reader.line_num
            data_list.append(self._parse(row, where))
        return data_list

    def _parse(self, row: dict[str, str], where: str) -> dict:
        info = dict(
            img_path=join_path(self.img_prefix, row['file']),
            gt_label=self._class_indices(row['labels'], where),
            unknown_label=self._class_indices(row.get('unknown_labels', ''), where),
        )
        _check_labels(info, len(self.CLASSES), where)
        return info

    def _class_indices(self, text: str, where: str) -> list[int]:
        names = {name.strip() for name in text.split(self.label_separator)} - {''}
        unknown = sorted(names - set(self.CLASSES))
        if unknown:
            raise ValueError(
                f'{where}: expected labels to be among `classes` {list(self.CLASSES)}, separated '
                f"by '{self.label_separator}', but got {unknown}."
            )
        return sorted(self.CLASSES.index(name) for name in names)


def _stored_classes(metainfo: dict) -> Sequence[str] | None:
    """Class names of a JSON file, in either of the two forms that MMPretrain reads."""
    if 'classes' in metainfo or 'categories' not in metainfo:
        return metainfo.get('classes')
    categories = sorted(metainfo['categories'], key=lambda category: category['id'])
    return [category['category_name'] for category in categories]


def _check_labels(info: dict, num_classes: int, where: str) -> None:
    positives, unknown = info.get('gt_label'), info.get('unknown_label', [])
    for field, labels in (('gt_label', positives), ('unknown_label', unknown)):
        if not isinstance(labels, list) or not all(
            isinstance(label, int) and 0 <= label < num_classes for label in labels
        ):
            raise ValueError(
                f"{where}: expected `{field}` of '{info['img_path']}' to be a list of class "
                f'indices in 0..{num_classes - 1}, but got {labels!r}.'
            )
    both = sorted(set(positives) & set(unknown))
    if both:
        raise ValueError(
            f"{where}: expected the classes of '{info['img_path']}' to be either there or "
            f'unknown, but {both} are both.'
        )
