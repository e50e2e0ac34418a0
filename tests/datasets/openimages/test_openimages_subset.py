import csv
import pickle
import re

import numpy as np
import pytest
import torch
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets import AnnotationError, OpenImagesSubset, VOCSubset
from mhc_plugin.datasets.openimages.annotations import (
    OpenImagesFiles,
    find_box_file,
    find_class_file,
    find_label_file,
    read_annotations,
    resolve_classes,
)

CLASSES = ['Dog', 'Cat']
LABELS = [
    ('b', '/m/dog', 1),
    ('a', '/m/cat', '1.0'),
    ('a', '/m/dog', '0.0'),
    ('c', '/m/cup', 1),
    ('d', '/m/cat', 0),
]
#         image, MID, XMin, XMax, YMin, YMax, IsGroupOf, IsDepiction
BOXES = [
    ('b', '/m/dog', 0.25, 0.5, 0, 0.5, 1, 0),
    ('a', '/m/dog', 0, 1, 0, 1, 0, 1),
    ('b', '/m/cat', 0, 0.5, 0.5, 1, 0, 0),
    ('b', '/m/cup', 0, 1, 0, 1, 0, 0),
]
TEN = ('Bottle', 'Car', 'Cat', 'Chair', 'Cattle', 'Dog', 'Horse', 'Person', 'Sheep', 'Couch')
VOC_TEN = ('bottle', 'car', 'cat', 'chair', 'cow', 'dog', 'horse', 'person', 'sheep', 'sofa')


@pytest.fixture
def root(make_openimages, tmp_path):
    return make_openimages(tmp_path / 'openimages', LABELS, BOXES)


def named_scores(dataset):
    return {
        dataset.get_data_info(i)['img_path'].rsplit('/', 1)[1][:-4]: row.tolist()
        for i, row in enumerate(dataset.data_list.labels.dense())
    }


@pytest.mark.parametrize(
    ('labels', 'depictions', 'expected'),
    [
        ('image', True, dict(a=[0, 1], b=[1, -1], c=[-1, -1], d=[-1, 0])),
        ('boxes', True, dict(a=[1, -1], b=[1, 1])),
        ('boxes', False, dict(a=[-1, -1], b=[1, 1])),
        ('both', True, dict(a=[1, 1], b=[1, 1], c=[-1, -1], d=[-1, 0])),
        ('both', False, dict(a=[0, 1], b=[1, 1], c=[-1, -1], d=[-1, 0])),
    ],
)
def test_what_nobody_verified_is_unknown(root, labels, depictions, expected):
    dataset = DATASETS.build(
        dict(
            type='OpenImagesSubset',
            data_root=str(root),
            classes=CLASSES,
            labels=labels,
            depictions=depictions,
        )
    )
    assert named_scores(dataset) == expected
    # Sorted by ImageID, whatever the order of rows.
    assert list(named_scores(dataset)) == sorted(expected)
    info = dataset.get_data_info(0)
    assert info['gt_score'].tolist() == expected['a']
    assert info['gt_label'] == [c for c, score in enumerate(expected['a']) if score == 1]
    assert dataset.get_cat_ids(0) == info['gt_label']


def test_classes_by_name_mid_or_all(root):
    assert OpenImagesSubset(str(root), classes=['/m/cup', 'Dog']).CLASSES == ('Cup, coffee', 'Dog')
    everything = OpenImagesSubset(str(root))
    assert everything.CLASSES == ('Cat', 'Dog', 'Cup, coffee')
    assert everything.get_cat_ids(2) == [2]


def test_classes_are_chosen_by_one_split_for_all(make_openimages, tmp_path):
    root = make_openimages(tmp_path / 'oi', [('a', '/m/cup', 1), ('a', '/m/dog', 1)])
    make_openimages(root, [('b', '/m/cat', 1), ('b', '/m/dog', 0)], split='test')
    dataset = OpenImagesSubset(str(root), 'test', classes=dict(split='train', num_classes=2))
    assert dataset.metainfo['classes'] == ('Dog', 'Cup, coffee')
    assert dataset.data_list.labels.dense().tolist() == [[0, -1]]


def test_classes_that_are_not_there_are_refused():
    names = {'/m/1': 'Mouse', '/m/2': 'Mouse', '/m/3': 'Cattle'}
    assert resolve_classes(names, ['/m/2', 'Cattle']) == {'/m/2': 'Mouse', '/m/3': 'Cattle'}
    for classes, message in (
        (['Catle'], "names or MIDs of OpenImages, but got 'Catle' (did you mean 'Cattle'?)."),
        (['zzz'], "but got 'zzz'."),
        (['Mouse'], "to be unambiguous, but 'Mouse' is the name of /m/1, /m/2: give the MID"),
        (['Cattle', '/m/3'], "to name each class once, but got '/m/3' twice"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            resolve_classes(names, classes)


def test_boxes_are_in_pixels_of_the_image_and_in_shares_on_the_sample(root):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64)),
        dict(type='RandomFlip', prob=1.0),
        dict(type='NormalizeBoxes'),
        dict(
            type='PackInputs', algorithm_keys=('gt_bboxes', 'gt_bbox_labels', 'gt_bbox_difficult')
        ),
    ]
    dataset = OpenImagesSubset(str(root), classes=CLASSES, with_boxes=True, pipeline=pipeline)
    info = dataset.get_data_info(1)
    # The image is 32 x 24.
    assert info['gt_bboxes'].tolist() == [[8, 0, 16, 12], [0, 12, 16, 24]]
    assert info['gt_bboxes'].dtype == np.float32
    assert info['gt_bboxes_labels'].tolist() == [0, 1]
    sample = dataset[1]['data_samples']
    torch.testing.assert_close(
        sample.gt_bboxes, torch.tensor([[0.5, 0, 0.75, 0.5], [0.5, 0.5, 1, 1]])
    )
    assert sample.gt_bbox_labels.tolist() == [0, 1]
    assert not sample.gt_bbox_difficult.any()
    assert dataset[2]['data_samples'].gt_bboxes.shape == (0, 4)
    assert 'gt_bboxes' not in OpenImagesSubset(str(root), classes=CLASSES).get_data_info(1)
    without = OpenImagesSubset(str(root), classes=CLASSES, with_boxes=True, depictions=False)
    assert len(without.get_data_info(0)['gt_bboxes']) == 0


def test_an_image_that_is_none_is_named(root):
    (root / 'train/b.jpg').write_text('no image')
    dataset = OpenImagesSubset(str(root), classes=CLASSES, with_boxes=True)
    with pytest.raises(AnnotationError, match=r'train/b\.jpg: The image cannot be read'):
        dataset.get_data_info(1)


def test_images_that_are_not_on_disk_are_left_out_and_counted(make_openimages, tmp_path):
    root = make_openimages(tmp_path / 'oi', LABELS, BOXES, on_disk=['b', 'd', 'other'])
    dataset = OpenImagesSubset(str(root), classes=CLASSES, labels='both', with_boxes=True)
    assert named_scores(dataset) == dict(b=[1, 1], d=[-1, 0])
    assert dataset.get_data_info(0)['gt_bboxes_labels'].tolist() == [0, 1]
    assert len(dataset.data_list.boxes.corners) == 2
    assert dataset.left_out.counts == {
        'images without a file': 2,
        'their rows of the chosen classes': 3,
    }
    everything = OpenImagesSubset(str(root), classes=CLASSES, require_images=False)
    assert len(everything) == 4
    assert everything.left_out.counts == {}
    (root / 'train/b.jpg').unlink()
    (root / 'train/d.jpg').unlink()
    with pytest.raises(AnnotationError, match='None of the 4 images that the files of train name'):
        OpenImagesSubset(str(root), classes=CLASSES)


def test_images_may_be_in_another_folder(root, tmp_path):
    (root / 'train').rename(tmp_path / 'train')
    for folder in ('../train', '../<split>', str(tmp_path / 'train')):
        dataset = OpenImagesSubset(str(root), classes=CLASSES, image_folder=folder)
        assert len(dataset) == 4
        assert dataset.get_data_info(0)['img_path'].endswith('/train/a.jpg')
    with pytest.raises(FileNotFoundError, match=r"`image_folder` .*openimages/train'"):
        OpenImagesSubset(str(root), classes=CLASSES)


def test_images_are_chosen_by_their_number_of_classes(root):
    dataset = OpenImagesSubset(str(root), classes=CLASSES, min_labels=1)
    assert list(named_scores(dataset)) == ['a', 'b']
    assert dataset.counts_before.unknown.tolist() == [2, 2]
    assert 'Labels by: \timage' in repr(dataset)
    assert pickle.loads(pickle.dumps(dataset)).get_cat_ids(0) == [1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(split='val'), r"`split` to be one of .*'validation', 'test'.*, but got 'val'"),
        (dict(labels='all'), r"`labels` to be one of .*'image', 'boxes', 'both'.*, but got 'all'"),
        (dict(max_images=0), '`max_images` to be an int of at least 1'),
        (dict(min_labels=3), 'None of the 4 images has 3 to any number of the classes Dog, Cat'),
    ],
)
def test_arguments_are_checked(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        OpenImagesSubset(str(root), classes=CLASSES, **arguments)


@pytest.mark.parametrize(
    ('find', 'name'),
    [
        (find_class_file, 'class-descriptions-boxable.csv'),
        (find_class_file, 'class-descriptions.csv'),
        (find_class_file, 'oidv6-class-descriptions.csv'),
        (find_class_file, 'oidv7-class-descriptions-boxable.csv'),
        (find_class_file, 'metadata/dict.csv'),
        (find_label_file, 'validation-annotations-human-imagelabels-boxable.csv'),
        (find_label_file, 'oidv7-val-annotations-human-imagelabels.csv'),
        (find_label_file, 'validation/annotations-human.csv'),
        (find_label_file, 'labels/oidv6-validation-annotations-human-imagelabels.csv'),
        (find_box_file, 'validation-annotations-bbox.csv'),
        (find_box_file, 'annotations/oidv6-validation-annotations-bbox.csv'),
        (find_box_file, 'validation-annotations-human-bbox.csv'),
        (find_box_file, 'validation/annotations-human-bbox.csv'),
    ],
)
def test_files_are_found_by_the_names_of_all_versions(tmp_path, find, name):
    split = [] if find is find_class_file else ['validation']
    argument = dict(
        find_class_file='class_file', find_label_file='label_file', find_box_file='box_file'
    )[find.__name__]
    with pytest.raises(FileNotFoundError, match=f'Expected one of .* set `{argument}`'):
        find(tmp_path, *split)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find(tmp_path, *split) == path
    other = tmp_path / 'other.csv'
    with pytest.raises(FileNotFoundError, match=rf'`{argument}` to be a file.*other\.csv'):
        find(tmp_path, *split, 'other.csv')
    other.touch()
    assert find(tmp_path, *split, 'other.csv') == find(tmp_path, *split, str(other)) == other


def test_file_of_another_name_is_an_option(root):
    (root / 'train-annotations-human-imagelabels-boxable.csv').rename(root / 'train/l.csv')
    (root / 'class-descriptions-boxable.csv').rename(root / 'c.csv')
    (root / 'train-annotations-bbox.csv').rename(root / 'b.csv')
    dataset = OpenImagesSubset(
        str(root),
        classes=CLASSES,
        labels='both',
        class_file='c.csv',
        label_file='<split>/l.csv',
        box_file='b.csv',
    )
    assert len(dataset) == 4
    with pytest.raises(FileNotFoundError, match='`data_root`'):
        OpenImagesSubset(str(root / 'none'), classes=CLASSES)


def test_annotations_do_not_depend_on_the_order_of_rows(make_openimages, tmp_path):
    rng = np.random.RandomState(0)
    mids = ['/m/cat', '/m/dog', '/m/cup']
    labels = [(f'{rng.randint(60):x}', mids[rng.randint(3)], rng.randint(2)) for _ in range(400)]
    boxes = [
        (f'{rng.randint(60):x}', mids[rng.randint(3)], 0, i / 100, 0, 1, 0, 0) for i in range(100)
    ]
    read = []
    for number in range(2):
        root = make_openimages(tmp_path / str(number), labels, boxes, on_disk=[])
        files = OpenImagesFiles.find(root, 'train', labels=True, boxes=True)
        read.append(read_annotations(files, mids, label_boxes=True, keep_boxes=True))
        labels.sort()
        boxes.sort(key=lambda box: box[0])
    first, second = read
    assert first.ids.tolist() == second.ids.tolist() == sorted(first.ids.tolist())
    np.testing.assert_array_equal(first.labels.dense(), second.labels.dense())
    expected = {}
    for image, mid, value in [*labels, *((box[0], box[1], 1) for box in boxes)]:
        key = image.encode(), mids.index(mid)
        expected[key] = max(expected.get(key, -1), value)
    dense = first.labels.dense()
    for row, image in enumerate(first.ids.tolist()):
        assert dense[row].tolist() == [expected.get((image, c), -1) for c in range(3)]
        corners, _, _ = first.boxes.of(row)
        wanted = sorted(box[3] for box in boxes if box[0].encode() == image)
        np.testing.assert_allclose(sorted(corners[:, 2]), wanted, rtol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ('split', 'voc_split'), [('train', 'train'), ('validation', 'val'), ('test', 'test')]
)
@pytest.mark.parametrize('labels', ['image', 'both'])
def test_both_formats_say_the_same_of_the_same_images(data_root, split, voc_split, labels):
    images = str(data_root / 'VOCdevkit/VOC2012/JPEGImages')
    ours = OpenImagesSubset(
        str(data_root / 'openimages'), split, classes=TEN, labels=labels, image_folder=images
    )
    voc = VOCSubset(str(data_root / 'VOCdevkit/VOC2012'), voc_split, classes=VOC_TEN)
    ours, voc = named_scores(ours), named_scores(voc)
    assert ours.keys() == voc.keys()
    for name, scores in ours.items():
        for score, true in zip(scores, voc[name]):
            assert (score == 1) == (true == 1)
            assert score != 0 or true == 0
            assert true != -1 or score == -1


@pytest.mark.real_data
def test_real_labels_are_those_of_an_independent_count(data_root):
    root = data_root / 'openimages'
    dataset = OpenImagesSubset(
        str(root), 'test', classes=TEN, image_folder='../VOCdevkit/VOC2012/JPEGImages'
    )
    with (root / 'class-descriptions-boxable.csv').open(encoding='utf-8', newline='') as file:
        mid_of = {name: mid for mid, name in csv.reader(file)}
    expected = {}
    with (root / 'test-annotations-human-imagelabels-boxable.csv').open(newline='') as file:
        for row in csv.DictReader(file):
            scores = expected.setdefault(row['ImageID'], [-1] * 10)
            for c, name in enumerate(TEN):
                if row['LabelName'] == mid_of[name]:
                    scores[c] = int(float(row['Confidence']))
    assert named_scores(dataset) == expected
    assert len(expected) == 587
