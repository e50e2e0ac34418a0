"""Small made VOC and OpenImages sets."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def object_xml(
    name: str, difficult: int | None = 0, box: Sequence[float] | None = (1, 1, 16, 12)
) -> str:
    """One ``<object>``; None leaves ``<difficult>`` or ``<bndbox>`` out."""
    xml = f'<object>\n<name>{name}</name>\n'
    if difficult is not None:
        xml += f'<difficult>{difficult}</difficult>\n'
    if box is not None:
        corners = ''.join(f'<{corner}>{value}</{corner}>' for corner, value in zip(CORNERS, box))
        xml += f'<bndbox>{corners}</bndbox>\n'
    return xml + '</object>\n'


@pytest.fixture
def make_voc(make_image) -> Callable[..., Path]:
    """Write a VOC root from the objects of each image, given as arguments of ``object_xml``."""

    def make(root: Path, objects: dict[str, list[tuple]], split: str = 'trainval') -> Path:
        for folder in ('Annotations', 'ImageSets/Main'):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for name, found in objects.items():
            body = ''.join(object_xml(*arguments) for arguments in found)
            (root / 'Annotations' / f'{name}.xml').write_text(
                f'<annotation>\n<filename>{name}.jpg</filename>\n{body}</annotation>\n'
            )
            make_image(root / 'JPEGImages' / f'{name}.jpg', size=(32, 24))
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(
            ''.join(f'{name}\n' for name in objects)
        )
        return root

    return make


@pytest.fixture
def make_openimages(make_image) -> Callable[..., Path]:
    """Write an OpenImages root with images, labels and boxes of one split."""

    def make(
        root: Path,
        labels: list[tuple],
        boxes: list[tuple] = (),
        split: str = 'train',
        on_disk: Sequence[str] | None = None,
    ) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        (root / 'class-descriptions-boxable.csv').write_text(
            '/m/cat,Cat\n/m/dog,Dog\n/m/cup,"Cup, coffee"\n'
        )
        (root / f'{split}-annotations-human-imagelabels-boxable.csv').write_text(
            'ImageID,Source,LabelName,Confidence\n'
            + ''.join(f'{image},verification,{mid},{value}\n' for image, mid, value in labels)
        )
        (root / f'{split}-annotations-bbox.csv').write_text(
            'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,'
            'IsGroupOf,IsDepiction,IsInside\n'
            + ''.join(
                f'{image},xclick,{mid},1,{x1},{x2},{y1},{y2},0,0,{group},{depiction},0\n'
                for image, mid, x1, x2, y1, y2, group, depiction in boxes
            )
        )
        named = {image for image, *_ in (*labels, *boxes)}
        (root / split).mkdir(exist_ok=True)
        for name in named if on_disk is None else on_disk:
            make_image(root / split / f'{name}.jpg', size=(32, 24))
        return root

    return make
