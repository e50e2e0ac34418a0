"""A multi-label dataset from OpenMMLab's JSON, its labels checked."""

import difflib
import json
from collections.abc import Sequence

from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import AnnotationError, check_path, read_text
from mhc_plugin.datasets.class_lists import class_list_difference, read_class_list
from mhc_plugin.datasets.image_files import find_listed_images
from mhc_plugin.datasets.targets import MultiLabelTargets

_POSITIVES = 'gt_label'
_UNKNOWN = ('unknown_label', 'unknown_labels')
_FIELDS = {'img_path', _POSITIVES, *_UNKNOWN}


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
        classes (Sequence[str] | str, optional): Names of the classes, or a file with one a line;
            needed where the JSON has none, else they must be those of the JSON. Defaults to None.
        missing_images (str): What becomes of images that are not on disk: 'skip' leaves them out
            and names them once, 'error' refuses the file. Defaults to 'skip'.
        **kwargs: Other arguments of MMPretrain's ``MultiLabelDataset``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If there are no class names.
        AnnotationError: If the file is not such a JSON, if its classes are others, if labels are
            not indices of classes, or if no image is left.
    """

    def __init__(
        self,
        ann_file: str,
        classes: Sequence[str] | str | None = None,
        missing_images: str = 'skip',
        **kwargs,
    ) -> None:
        self.missing_images = missing_images
        super().__init__(ann_file=ann_file, classes=classes, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images of the file that are there, their labels checked."""
        check_path(self.ann_file, 'ann_file')
        metainfo, entries = self._parse()
        classes = self._agreed_classes(metainfo)
        for name, value in metainfo.items():
            self._metainfo.setdefault(name, value)
        self._metainfo['classes'] = classes
        data_list = [self._checked(entry, len(classes)) for entry in entries]
        names = [entry['img_path'] for entry in data_list]
        paths = find_listed_images(names, self.ann_file, self.img_prefix, self.missing_images)
        return [
            dict(entry, img_path=path) for entry, path in zip(data_list, paths) if path is not None
        ]

    def _parse(self) -> tuple[dict, list[dict]]:
        try:
            content = json.loads(read_text(self.ann_file))
        except json.JSONDecodeError as error:
            raise AnnotationError(
                f'The JSON is broken: {error.msg}.', self.ann_file, error.lineno
            ) from None
        fits = isinstance(content, dict)
        metainfo = content.get('metainfo') if fits else None
        entries = content.get('data_list') if fits else None
        if not isinstance(metainfo, dict) or not isinstance(entries, list):
            raise AnnotationError(
                "Expected OpenMMLab's JSON, an object with `metainfo` (an object) and `data_list` "
                '(a list); for exports of other tools see `tools/prepare_dataset.py convert`.',
                self.ann_file,
            )
        return metainfo, entries

    def _agreed_classes(self, metainfo: dict) -> tuple[str, ...]:
        given, stored = self._metainfo.get('classes'), metainfo.get('classes')
        if stored is None and 'categories' in metainfo:
            # The other form that MMPretrain reads.
            categories = sorted(metainfo['categories'], key=lambda category: category['id'])
            stored = [category['category_name'] for category in categories]
        if stored is None:
            if given is None:
                raise ValueError(
                    'Expected class names in argument `classes` or in the metainfo of '
                    f"'{self.ann_file}', but neither has them."
                )
            return tuple(given)
        try:
            stored = read_class_list(tuple(stored))
        except ValueError as error:
            raise AnnotationError(str(error), self.ann_file) from None
        problem = given and class_list_difference(
            stored, given, f"'{self.ann_file}'", 'argument `classes`'
        )
        if problem:
            raise AnnotationError(problem, self.ann_file)
        return stored

    def _checked(self, entry: dict, num_classes: int) -> dict:
        """One image, its unknown labels under one name."""
        if not isinstance(entry, dict) or not isinstance(entry.get('img_path'), str):
            raise AnnotationError(
                f'Expected every image to be an object with `img_path`, but got {entry!r:.200}.',
                self.ann_file,
            )
        for name in entry.keys() - _FIELDS:
            near = difflib.get_close_matches(name.lower(), (_POSITIVES, *_UNKNOWN), 1, cutoff=0.75)
            if near:
                raise self._error(entry, f'Got a field {name!r}; did you mean `{near[0]}`?')
        if all(name in entry for name in _UNKNOWN):
            raise self._error(entry, f'Expected one of {" and ".join(_UNKNOWN)}, but got both.')
        unknown = entry.pop(_UNKNOWN[1], entry.get(_UNKNOWN[0], []))
        positives = entry.get(_POSITIVES)
        for field, labels in ((_POSITIVES, positives), (_UNKNOWN[0], unknown)):
            self._check_indices(entry, field, labels, num_classes)
        if unknown:
            both = sorted(set(positives) & set(unknown))
            if both:
                raise self._error(
                    entry, f'Expected a class to be either there or unknown, but {both} are both.'
                )
        entry[_UNKNOWN[0]] = unknown
        return entry

    def _check_indices(self, entry: dict, field: str, labels: object, num_classes: int) -> None:
        if (
            isinstance(labels, list)
            # A bool is an int, but no index.
            and all(type(label) is int and 0 <= label < num_classes for label in labels)
            and len(set(labels)) == len(labels)
        ):
            return
        hint = ''
        if (
            isinstance(labels, list)
            and len(labels) == num_classes
            and all(label in (0, 1) for label in labels)
        ):
            there = [i for i, label in enumerate(labels) if label]
            hint = f'; where it says of each class whether it is there, write {there}'
        raise self._error(
            entry,
            f'Expected `{field}` to be a list of distinct class indices in 0..{num_classes - 1}, '
            f'but got {labels!r}{hint}.',
        )

    def _error(self, entry: dict, message: str) -> AnnotationError:
        return AnnotationError(f"image '{entry['img_path']}': {message}", self.ann_file)
