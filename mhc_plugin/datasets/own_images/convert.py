"""Image labels from what annotation tools export: Label Studio, CVAT and COCO's JSON."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from mhc_plugin.datasets.annotation_files import AnnotationError, check_path, read_text
from mhc_plugin.datasets.class_lists import near_names, read_class_list, shown
from mhc_plugin.datasets.image_files import SUFFIXES

# What Label Studio adds to a record behind its labels.
_RECORD_FIELDS = {
    'id',
    'annotator',
    'annotation_id',
    'created_at',
    'updated_at',
    'lead_time',
    'agreement',
}


@dataclass
class ExportedLabels:
    """Labels of images by name.

    Attributes:
        tool (str): What exported them.
        classes (tuple[str]): Names of the classes.
        labels (dict): For each image, the labels that each of its annotations gives.
    """

    tool: str
    classes: tuple[str, ...]
    labels: dict[str, list[set[str]]] = field(default_factory=dict)

    def entries(self, classes: Sequence[str]) -> list[dict]:
        """The images for :func:`write_annotations`, with some of the classes.

        Where annotations of one image disagree on a class, it is unknown.
        """
        index = {name: i for i, name in enumerate(classes)}
        entries = []
        for name, annotations in self.labels.items():
            some, every = set.union(*annotations), set.intersection(*annotations)
            entries.append(
                dict(
                    img_path=name,
                    gt_label=sorted(index[label] for label in every if label in index),
                    unknown_label=sorted(index[label] for label in some - every if label in index),
                )
            )
        return entries


def read_export(
    path: str | os.PathLike, classes: Sequence[str] | None = None, choices: str | None = None
) -> ExportedLabels:
    """Read the labels of images from an export, whose format its content tells.

    - Label Studio's JSON-MIN: a list of records with an image and the choices made for it.
    - CVAT's "CVAT for images" XML: ``<image name="...">`` with ``<tag label="..."/>``.
    - COCO's JSON: an image has the labels of its annotations, whatever they outline. A category
      without annotations that only heads the others, as Roboflow writes one, is no class.

    Args:
        path (str | PathLike): The file.
        classes (Sequence[str], optional): The classes to take, in their order. Defaults to None:
            all, in the order of the export, or of the alphabet where it has none.
        choices (str, optional): Name of the field of choices of a Label Studio export that has
            several. Defaults to None.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If the file is no such export.
        ValueError: If a class is not in the export.
    """
    path = os.fspath(path)
    check_path(path, 'export')
    text = read_text(path)
    found = (
        _read_cvat(text, path) if text.lstrip().startswith('<') else _read_json(text, path, choices)
    )
    if classes is not None:
        classes = read_class_list(classes)
        for name in classes:
            if name not in found.classes:
                raise ValueError(
                    f"Expected argument `classes` to name classes of '{path}', "
                    f'{shown(found.classes)}, but got {name!r}{near_names(name, found.classes)}.'
                )
        found.classes = classes
    return found


def _read_json(text: str, path: str, choices: str | None) -> ExportedLabels:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(f'The JSON is broken: {error.msg}.', path, error.lineno) from None
    if isinstance(content, dict) and {'images', 'annotations', 'categories'} <= content.keys():
        return _read_coco(content, path)
    if isinstance(content, list) and all(isinstance(record, dict) for record in content):
        return _read_label_studio(content, path, choices)
    raise AnnotationError(
        "Expected Label Studio's JSON-MIN (a list of records), COCO's JSON (an object with "
        '`images`, `annotations` and `categories`) or the XML of "CVAT for images".',
        path,
    )


def _read_coco(content: dict, path: str) -> ExportedLabels:
    try:
        names = {category['id']: category['name'] for category in content['categories']}
        heads = {category.get('supercategory') for category in content['categories']}
        images = {image['id']: image['file_name'] for image in content['images']}
        pairs = [(found['image_id'], found['category_id']) for found in content['annotations']]
    except (KeyError, TypeError) as error:
        raise AnnotationError(
            f'Expected the fields of COCO, but {error} is not there.', path
        ) from None
    for image, category in pairs:
        if image not in images or category not in names:
            raise AnnotationError(
                f'Expected annotations to be of the images and categories of the file, but got '
                f'image {image!r} and category {category!r}.',
                path,
            )
    used = {category for _, category in pairs}
    classes = [names[i] for i in sorted(names) if i in used or names[i] not in heads]
    labels = {image: set() for image in images}
    for image, category in pairs:
        labels[image].add(names[category])
    if len(set(images.values())) < len(images):
        twice = next(a for a, b in pairwise(sorted(images.values())) if a == b)
        raise AnnotationError(f'Expected each image once, but {twice!r} is there twice.', path)
    return ExportedLabels(
        'COCO', _classes(classes, path), {images[i]: [found] for i, found in labels.items()}
    )


def _read_label_studio(records: list[dict], path: str, choices: str | None) -> ExportedLabels:
    if any(isinstance(record.get('annotations'), list) for record in records):
        raise AnnotationError(
            "Expected Label Studio's JSON-MIN, but got its JSON; export once more as JSON-MIN.",
            path,
        )
    fields = {name for record in records for name in _choice_fields(record)}
    if choices is None and len(fields) > 1:
        raise AnnotationError(
            f'Expected one field of choices, but got {sorted(fields)}; name one by `choices`.', path
        )
    if choices is not None and choices not in fields:
        raise ValueError(
            f"Expected argument `choices` to be a field of choices of '{path}', {sorted(fields)}, "
            f'but got {choices!r}.'
        )
    wanted = choices or next(iter(fields), '')
    labels: dict[str, list[set[str]]] = {}
    sources: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        source = _image_source(record, wanted)
        if source is None:
            raise AnnotationError(f'Expected an image in record {number}, but got none.', path)
        name = _image_name(source)
        if sources.setdefault(name, source) != source:
            raise AnnotationError(
                f'Expected images to have names of their own, but {sources[name]!r} and '
                f'{source!r} are both {name!r}.',
                path,
            )
        labels.setdefault(name, []).append(set(_choices(record.get(wanted)) or ()))
    found = sorted(set().union(*(label for each in labels.values() for label in each)))
    return ExportedLabels('Label Studio', _classes(found, path), labels)


def _choice_fields(record: dict) -> list[str]:
    """Fields of choices: several are an object, a single one is bare, behind the record's id."""
    names = list(record)
    behind = names[names.index('id') + 1 :] if 'id' in names else []
    return [
        name
        for name, value in record.items()
        if name not in _RECORD_FIELDS
        and _choices(value) is not None
        and (name in behind or not isinstance(value, str))
    ]


def _choices(value: Any) -> list[str] | None:
    """Choices of one field, in any form that Label Studio gives them; None if it has none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and isinstance(value.get('choices'), list):
        return [str(choice) for choice in value['choices']]
    if isinstance(value, list) and value:
        parts = [_choices(part) for part in value]
        return None if None in parts else [choice for part in parts for choice in part]
    return None


def _image_source(record: dict, choices: str) -> str | None:
    """The field `image`, or the first that ends as images do."""
    fields = {
        name: value
        for name, value in record.items()
        if isinstance(value, str) and name != choices and name not in _RECORD_FIELDS
    }
    by_ending = (v for v in fields.values() if _image_name(v).lower().endswith(SUFFIXES))
    return fields.get('image', next(by_ending, None))


def _image_name(source: str) -> str:
    """Name of an image: below the storage for local files, else that of its file."""
    parts = urlsplit(source)
    local = parse_qs(parts.query).get('d')
    if local:
        return local[0].lstrip('/')
    # Without a host or Label Studio's folder of uploads it is a path below the folder of images.
    is_path = not parts.scheme and not parts.netloc and not parts.path.startswith('/')
    return source if is_path else os.path.basename(unquote(parts.path))


def _read_cvat(text: str, path: str) -> ExportedLabels:
    try:
        root = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise AnnotationError(f'The XML is broken: {error.msg}.', path, error.position[0]) from None
    except (DefusedXmlException, ValueError) as error:
        raise AnnotationError(f'The XML cannot be read: {error}.', path) from None
    if root.tag != 'annotations' or root.find('image') is None:
        raise AnnotationError(
            'Expected the XML of "CVAT for images", <annotations> with <image>, but got '
            f'<{root.tag}> without.',
            path,
        )
    classes = [
        label.findtext('name', '').strip()
        for label in root.iterfind('meta//labels/label')
        if label.findtext('type', 'any').strip() in ('any', 'tag')
    ]
    labels: dict[str, list[set[str]]] = {}
    for image in root.iterfind('image'):
        name = image.get('name', '')
        if not name or name in labels:
            raise AnnotationError(
                f'Expected each <image> to have a name of its own, but got {name!r}.', path
            )
        labels[name] = [{tag.get('label', '') for tag in image.iterfind('tag')}]
    used = set().union(*(found for each in labels.values() for found in each))
    if not used:
        raise AnnotationError('Expected images with <tag>, but none has one.', path)
    return ExportedLabels('CVAT', _classes([*classes, *sorted(used - set(classes))], path), labels)


def _classes(names: Sequence[str], path: str) -> tuple[str, ...]:
    if not names:
        raise AnnotationError('Expected labels of images, but the file has none.', path)
    try:
        return read_class_list(tuple(names))
    except ValueError as error:
        raise AnnotationError(str(error), path) from None
