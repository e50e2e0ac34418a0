"""Boxes lie on their objects, whatever EXIF does with the image; Pillow draws and turns."""

import numpy as np
import pytest
from mmpretrain.registry import DATASETS
from PIL import Image, ImageDraw, ImageOps

from mhc_plugin.datasets import OpenImagesSubset, VOCSubset
from mhc_plugin.datasets.image_files import read_image_header

SIZE = (48, 32)  # of the images as they are stored
LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='PackInputs', algorithm_keys=('gt_bboxes', 'gt_bbox_labels', 'gt_bbox_difficult'))
PIPELINE = [LOAD, dict(type='Resize', scale=(96, 96)), dict(type='NormalizeBoxes'), PACK]


def draw(path, orientation, box, size=SIZE):
    """A white rectangle on black; ``box`` is in pixels of the image as it is stored."""
    image = Image.new('RGB', size)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill='white')
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=100, subsampling=0)


def white_box(image):
    """Where an image is white: x1, y1, x2, y2."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def shown_box(path):
    with Image.open(path) as image:
        shown = ImageOps.exif_transpose(image)
        return white_box(shown), shown.size


def annotate(root, name, box, size):
    corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), (box[0] + 1, box[1] + 1, box[2], box[3]))
    path = root / 'Annotations' / f'{name}.xml'
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    path.write_text(
        f'<annotation><size><width>{width}</width><height>{height}</height></size>'
        '<object><name>cat</name><bndbox>'
        + ''.join(f'<{corner}>{value}</{corner}>' for corner, value in corners)
        + '</bndbox></object></annotation>'
    )


def make_voc(root, drawn, scale=1, orientations=range(1, 9), size=SIZE):
    """One image for each orientation, annotated as it is stored or as it is shown."""
    for number in orientations:
        path = root / f'JPEGImages/{number}.jpg'
        draw(path, number, (4, 6, 20, 16), size)
        box, annotated = ((4, 6, 20, 16), size) if drawn == 'stored' else shown_box(path)
        annotate(root, number, [scale * x for x in box], [scale * side for side in annotated])
    lists = root / 'ImageSets/Main'
    lists.mkdir(parents=True, exist_ok=True)
    (lists / 'trainval.txt').write_text(''.join(f'{number}\n' for number in orientations))
    return VOCSubset(str(root), classes=['cat'], pipeline=PIPELINE)


def check_boxes(dataset):
    for idx in range(len(dataset)):
        info = dataset.get_data_info(idx)
        box, size = shown_box(info['img_path'])
        np.testing.assert_allclose(info['gt_bboxes'], [box], atol=1e-3, err_msg=info['img_path'])
        assert read_image_header(info['img_path']).shown_size == size
        sample = dataset[idx]
        # The image as OpenCV reads it: all that is white lies in the box, and nothing else.
        image = sample['inputs'].numpy().transpose(1, 2, 0)
        expected = np.array(white_box(image)) / 96
        np.testing.assert_allclose(sample['data_samples'].gt_bboxes[0], expected, atol=0.02)


@pytest.mark.parametrize('scale', [1, 2.5])
@pytest.mark.parametrize('drawn', ['stored', 'shown'])
def test_voc(tmp_path, drawn, scale):
    dataset = make_voc(tmp_path, drawn, scale)
    assert len(dataset) == 8
    check_boxes(dataset)
    assert not dataset.left_out.counts


def test_openimages(make_openimages, tmp_path):
    boxes = [
        (f'{number}', '/m/cat', 4 / 48, 20 / 48, 6 / 32, 16 / 32, 0, 0) for number in range(1, 9)
    ]
    root = make_openimages(tmp_path, [], boxes)
    for number in range(1, 9):
        draw(root / f'train/{number}.jpg', number, (4, 6, 20, 16))
    dataset = OpenImagesSubset(
        str(root), classes=['Cat'], labels='boxes', with_boxes=True, pipeline=PIPELINE
    )
    assert len(dataset) == 8
    check_boxes(dataset)


def test_where_sizes_say_nothing_images_are_taken_as_annotated_upright_and_counted(tmp_path):
    dataset = make_voc(tmp_path / 'turned', 'shown', orientations=(2, 3, 4))
    check_boxes(dataset)
    (what,) = dataset.left_out.counts
    assert what.startswith('turned images whose annotations do not say')
    assert dataset.left_out.counts[what] == 3
    dataset = make_voc(tmp_path / 'square', 'shown', orientations=(6, 8), size=(40, 40))
    check_boxes(dataset)
    assert dataset.left_out.counts[what] == 2


def test_boxes_of_an_image_that_was_resized_out_of_proportion_are_left_out(tmp_path):
    make_voc(tmp_path, 'stored')
    annotate(tmp_path, 3, (4, 6, 20, 16), (48, 48))
    dataset = VOCSubset(str(tmp_path), classes=['cat'], pipeline=PIPELINE)
    (what,) = dataset.left_out.counts
    assert what.startswith('images whose sides have another ratio')
    assert dataset.left_out.counts[what] == 1
    assert dataset.left_out.first[what].endswith('3.jpg')
    assert dataset.get_data_info(2)['gt_bboxes'].shape == (0, 4)
    assert dataset.get_data_info(3)['gt_bboxes'].shape == (1, 4)


def test_boxes_without_a_size_are_in_pixels_of_the_image_as_it_is_shown(tmp_path):
    make_voc(tmp_path, 'shown')
    for path in (tmp_path / 'Annotations').iterdir():
        path.write_text(path.read_text().replace('<width>', '<depth>').replace('/width', '/depth'))
    check_boxes(VOCSubset(str(tmp_path), classes=['cat'], pipeline=PIPELINE))


def test_images_are_only_opened_where_boxes_are_used(tmp_path):
    make_voc(tmp_path, 'stored')
    (tmp_path / 'JPEGImages/3.jpg').write_text('no image')
    with pytest.raises(ValueError, match=r'JPEGImages/3\.jpg: The image cannot be read'):
        VOCSubset(str(tmp_path), classes=['cat'], pipeline=PIPELINE)
    crop = dict(type='RandomCrop', crop_size=16)
    dataset = DATASETS.build(
        dict(
            type='VOCSubset', data_root=str(tmp_path), classes=['cat'], pipeline=[LOAD, crop, PACK]
        )
    )
    assert 'gt_bboxes' not in dataset.get_data_info(0)
    assert dataset[0]['inputs'].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r'JPEGImages/3\.jpg: The image cannot be read'):
        dataset[2]
