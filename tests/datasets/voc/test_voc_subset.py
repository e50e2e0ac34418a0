import pickle
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets import AnnotationError, VOCSubset
from mhc_plugin.datasets.voc.subset import read_split

CLASSES = ['cat', 'dog', 'person']
OBJECTS = dict(
    a=[('dog', 0, (1, 1, 16, 12)), ('cat', 1, (17, 13, 32, 24)), ('person', 1), ('person', 0)],
    b=[('cat', 0), ('sofa', 0), ('dog', 1), ('dog', 1)],
    c=[('dog', None, None)],
    d=[('sofa', 0)],
)
SCORES = dict(
    unknown=[[-1, 1, 1], [1, -1, 0], [0, 1, 0], [0, 0, 0]],
    positive=[[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]],
    negative=[[0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]],
)
WHOLE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64)),
    dict(type='NormalizeBoxes'),
    dict(type='PackInputs', algorithm_keys=('gt_bboxes', 'gt_bbox_labels', 'gt_bbox_difficult')),
]


@pytest.fixture
def root(make_voc, tmp_path):
    return make_voc(tmp_path / 'VOC2012', OBJECTS)


def names(dataset):
    return [
        dataset.get_data_info(i)['img_path'].rsplit('/', 1)[1][:-4] for i in range(len(dataset))
    ]


def named(scores):
    return np.asarray(scores, dtype=np.int8)


@pytest.mark.parametrize('difficult', SCORES)
def test_targets_and_what_difficult_objects_are(root, difficult):
    dataset = DATASETS.build(
        dict(type='VOCSubset', data_root=str(root), classes=CLASSES, difficult=difficult)
    )
    assert names(dataset) == list('abcd')
    np.testing.assert_array_equal(dataset.data_list.labels.dense(), named(SCORES[difficult]))
    for i, scores in enumerate(SCORES[difficult]):
        info = dataset.get_data_info(i)
        assert info['gt_score'].dtype == np.float32
        assert info['gt_score'].tolist() == scores
        assert info['gt_label'] == [c for c, score in enumerate(scores) if score == 1]
        assert dataset.get_cat_ids(i) == info['gt_label']
    assert dataset.get_cat_ids(-2) == [1]
    assert dataset.metainfo['classes'] == tuple(CLASSES)


def test_all_twenty_classes_by_default(root):
    dataset = VOCSubset(str(root))
    assert len(dataset.CLASSES) == 20
    assert dataset.data_list.labels.dense().sum(1).tolist() == [1, 1, 1, 1]
    assert 'Roots: ' in repr(dataset)
    assert 'Difficult objects: \tunknown' in repr(dataset)


def test_boxes_are_in_pixels_in_results_and_in_shares_on_the_sample(root):
    dataset = VOCSubset(str(root), classes=CLASSES, pipeline=WHOLE, test_mode=True)
    info = dataset.get_data_info(0)
    assert info['gt_bboxes'].tolist() == [[0, 0, 16, 12], [16, 12, 32, 24]] + [[0, 0, 16, 12]] * 2
    assert info['gt_bboxes_labels'].tolist() == [1, 0, 2, 2]
    sample = dataset[0]['data_samples']
    torch.testing.assert_close(
        sample.gt_bboxes,
        torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]] + [[0, 0, 0.5, 0.5]] * 2),
    )
    assert sample.gt_bbox_labels.tolist() == [1, 0, 2, 2]
    assert sample.gt_bbox_difficult.tolist() == [False, True, True, False]
    # An object without a box, and an image without an object of the classes.
    assert dataset[2]['data_samples'].gt_bboxes.shape == (0, 4)
    assert dataset[3]['data_samples'].gt_bboxes.shape == (0, 4)


def test_of_some_classes_labels_and_boxes_are_numbered_anew(root):
    dataset = VOCSubset(
        str(root), classes=CLASSES, keep_classes=['person', 'dog'], pipeline=WHOLE, test_mode=True
    )
    assert dataset.metainfo['classes'] == ('dog', 'person')
    for i, scores in enumerate(SCORES['unknown']):
        info = dataset.get_data_info(i)
        assert info['gt_score'].tolist() == scores[1:]
        assert info['gt_label'] == [c for c, score in enumerate(scores[1:]) if score == 1]
        assert dataset.get_cat_ids(i) == info['gt_label']
    sample = dataset[0]['data_samples']
    assert sample.gt_bbox_labels.tolist() == [0, 1, 1]
    assert sample.gt_bbox_difficult.tolist() == [False, True, False]
    torch.testing.assert_close(sample.gt_bboxes, torch.tensor([[0, 0, 0.5, 0.5]] * 3))


def test_boxes_follow_a_flip_and_do_not_enter_a_crop(root):
    flipped = [*WHOLE[:2], dict(type='RandomFlip', prob=1.0), *WHOLE[2:]]
    sample = VOCSubset(str(root), classes=CLASSES, pipeline=flipped)[0]['data_samples']
    torch.testing.assert_close(sample.gt_bboxes[0], torch.tensor([0.5, 0, 1, 0.5]))
    cropped = [*WHOLE[:2], dict(type='RandomCrop', crop_size=64, padding=8), *WHOLE[2:]]
    sample = VOCSubset(str(root), classes=CLASSES, pipeline=cropped)[0]['data_samples']
    assert not any(key.startswith('gt_bbox') for key in sample.keys())  # noqa: SIM118
    assert sample.gt_score.tolist() == [-1, 1, 1]


def test_test_time_augmentation_keeps_boxes(root):
    views = dict(
        type='TestTimeAug',
        transforms=[
            [WHOLE[1]],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [WHOLE[2]],
            [WHOLE[3]],
        ],
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = VOCSubset(str(root), classes=CLASSES, pipeline=[WHOLE[0], views])
    flipped, plain = dataset[0]['data_samples']
    torch.testing.assert_close(flipped.gt_bboxes[1], torch.tensor([0, 0.5, 0.5, 1]))
    torch.testing.assert_close(plain.gt_bboxes[1], torch.tensor([0.5, 0.5, 1, 1]))


@pytest.mark.parametrize(
    ('limits', 'expected'),
    [
        (dict(min_labels=1), 'abc'),
        (dict(min_labels=2), 'a'),
        (dict(max_labels=1), 'bcd'),
        (dict(min_labels=1, max_labels=1), 'bc'),
        (dict(max_labels=0), 'd'),
    ],
)
def test_images_are_chosen_by_their_number_of_classes(root, limits, expected):
    dataset = VOCSubset(str(root), classes=CLASSES, **limits)
    assert names(dataset) == list(expected)
    assert dataset.counts_before.images == 4
    assert dataset.counts_before.present.tolist() == [1, 2, 1]
    assert dataset.counts_after.images == len(expected) == len(dataset)


def test_at_most_so_many_images_by_seed(make_voc, tmp_path):
    root = make_voc(
        tmp_path / 'VOC', {f'{i:02}': [('cat', 0)] if i % 4 else [('dog', 0)] for i in range(40)}
    )
    choices = [
        VOCSubset(str(root), classes=CLASSES, max_images=12, seed=seed) for seed in (0, 0, 1)
    ]
    assert [len(choice) for choice in choices] == [12] * 3
    assert choices[0].counts_after.present.tolist() == [6, 6, 0]
    assert names(choices[0]) == names(choices[1]) != names(choices[2])


def test_several_roots_are_one_set(make_voc, tmp_path):
    first = make_voc(tmp_path / 'VOC2007', {'000001': [('cat', 0)]})
    second = make_voc(tmp_path / 'VOC2012', {'2008_1': [('dog', 0)], '000001': [('person', 0)]})
    dataset = VOCSubset([str(first), second], classes=CLASSES)
    assert [dataset.get_data_info(i)['img_path'] for i in range(3)] == [
        f'{first}/JPEGImages/000001.jpg',
        f'{second}/JPEGImages/2008_1.jpg',
        f'{second}/JPEGImages/000001.jpg',
    ]
    assert dataset.data_list.labels.dense().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_of_several_roots_those_without_the_split_are_left_out(make_voc, tmp_path, root):
    other = make_voc(tmp_path / 'VOC2007', {'1': [('cat', 0)]}, split='test')
    dataset = VOCSubset([str(tmp_path / 'none'), str(other), str(root)], classes=CLASSES)
    assert names(dataset) == list('abcd')
    assert dataset.left_out.counts == {
        'roots that do not exist': 1,
        'roots without the split': 1,
        'objects without a box': 1,
    }
    assert dataset.left_out.first['roots that do not exist'] == str(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match=r"`split` .*VOC2012/ImageSets/Main/val\.txt'"):
        VOCSubset(str(root), 'val')
    with pytest.raises(FileNotFoundError, match=r"`data_root` .*none'"):
        VOCSubset(str(tmp_path / 'none'))


def test_split_of_one_class_names_images(root):
    (root / 'ImageSets/Main/dog_trainval.txt').write_text('b -1\na  1\n\nc 0\nb 1\n')
    assert names(VOCSubset(str(root), 'dog_trainval', classes=CLASSES)) == list('bac')
    # The line of a name that is repeated is its first.
    assert read_split(root / 'ImageSets/Main/dog_trainval.txt') == dict(b=1, a=2, c=4)


def test_names_with_spaces_and_in_other_scripts(make_voc, tmp_path):
    given = ['pic 3', 'a 1 b', '犬', "it's (1)", 'x']
    root = make_voc(tmp_path, {name: [('cat', 0)] for name in given})
    assert names(VOCSubset(str(root), classes=CLASSES)) == given
    (root / 'ImageSets/Main/cat.txt').write_text('pic 3 -1\na 1 b\t1\n犬  0\nx\n')
    assert list(read_split(root / 'ImageSets/Main/cat.txt')) == ['pic 3', 'a 1 b', '犬', 'x']


def test_images_have_the_ending_that_the_folder_says(make_voc, tmp_path):
    root = make_voc(tmp_path, {name: [('cat', 0)] for name in 'abcd'})
    for old, new in (('a.jpg', 'a.JPG'), ('b.jpg', 'b.png'), ('c.jpg', 'c.jpeg')):
        (root / 'JPEGImages' / old).rename(root / 'JPEGImages' / new)
    (root / 'JPEGImages/d.png').write_text('a mask')
    dataset = VOCSubset(str(root), classes=CLASSES, pipeline=WHOLE)
    files = [dataset.get_data_info(i)['img_path'].rsplit('/', 1)[1] for i in range(4)]
    assert files == ['a.JPG', 'b.png', 'c.jpeg', 'd.jpg']
    assert dataset[1]['inputs'].shape == (3, 64, 64)
    (root / 'ImageSets/Main/trainval.txt').write_text('b.png\nd.jpg\n')
    assert names(VOCSubset(str(root), classes=CLASSES)) == ['b', 'd']


def test_what_is_missing_is_left_out_counted_and_logged(root, monkeypatch):
    lines = []
    logger = type('Logger', (), dict(warning=lines.append, info=lines.append))
    monkeypatch.setattr('mhc_plugin.datasets.subset.MMLogger.get_current_instance', lambda: logger)
    (root / 'ImageSets/Main/trainval.txt').write_text('a\ngone\nb\nc\nlost\n')
    (root / 'JPEGImages/b.jpg').unlink()
    (root / 'Annotations/c.xml').unlink()
    xml = (root / 'Annotations/a.xml').read_text()
    (root / 'Annotations/a.xml').write_text(xml.replace('cat', 'unicorn'))
    dataset = VOCSubset(str(root), classes=CLASSES)
    assert names(dataset) == ['a']
    assert dataset.left_out.counts == {
        'images of the split without a file': 3,
        'images of the split without an annotation': 1,
        'objects of classes that VOC does not have': 1,
    }
    split = root / 'ImageSets/Main/trainval.txt'
    assert lines[0] == (
        f'VOCSubset trainval: images of the split without a file: 3 (see {split}, line 2)'
    )
    assert lines[1].endswith(f'1 (see {split}, line 4)')
    assert lines[2].endswith(f'1 (see {root / "Annotations/a.xml"}, line 8)')
    assert lines[3] == 'VOCSubset trainval: 1 of 1 images; per class: dog 1, person 1'


def test_own_classes_are_taken_if_an_annotation_names_them(make_voc, tmp_path):
    root = make_voc(tmp_path / 'own', {'a': [('unicorn', 0)]})
    assert VOCSubset(str(root), classes=['unicorn', 'cat']).data_list.labels.dense().tolist() == [
        [1, 0]
    ]
    with pytest.raises(
        ValueError,
        match=r"got 'sheeep' \(did you mean 'sheep'\?\); there are aeroplane, .*, unicorn\.",
    ):
        VOCSubset(str(root), classes=['sheeep', 'cat'])


def test_classes_are_chosen_by_one_split_for_all(make_voc, tmp_path):
    root = make_voc(tmp_path / 'VOC', {'a': [('cat', 0), ('sofa', 0)], 'b': [('dog', 0)]})
    make_voc(root, {'c': [('dog', 0), ('bird', 0)]}, split='test')
    choice = dict(split='trainval', num_classes=2)
    for split in ('trainval', 'test'):
        dataset = VOCSubset(str(root), split, classes=choice)
        assert dataset.metainfo['classes'] == ('cat', 'sofa')
    assert dataset.data_list.labels.dense().tolist() == [[0, 0]]
    with pytest.raises(ValueError, match='to name the `split` that decides'):
        VOCSubset(str(root), classes=dict(num_classes=2))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            dict(difficult='maybe'),
            r"`difficult` to be one of \('unknown', 'positive', 'negative'\), but got 'may",
        ),
        (dict(data_root=[]), r'`data_root` to be one path or several, but got \[\]'),
        (dict(min_labels=-1), '`min_labels` to be an int of at least 0'),
        (dict(min_labels=4), 'None of the 4 images has 4 to any number of the classes cat, dog'),
        (dict(min_labels=3, max_labels=5), 'None of the 4 images has 3 to 5 of the classes'),
        (dict(classes=['cat', 'cat']), r"`classes` to hold each class once, but got \['cat'\]"),
    ],
)
def test_arguments_are_checked(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        VOCSubset(**dict(dict(data_root=str(root), classes=CLASSES), **arguments))


@pytest.mark.parametrize('text', ['', '\n\n', 'gone\n'])
def test_split_without_a_usable_image_is_an_error(root, text):
    (root / 'ImageSets/Main/trainval.txt').write_text(text)
    with pytest.raises(AnnotationError, match="No image of the split 'trainval' has both"):
        VOCSubset(str(root), classes=CLASSES)


def test_damage_names_file_and_line(root):
    path = root / 'Annotations/b.xml'
    path.write_text(path.read_text().replace('<xmax>16', '<xmax>x'))
    with pytest.raises(AnnotationError, match=r'b\.xml, line 6: Expected <xmax>'):
        VOCSubset(str(root), classes=CLASSES)
    split = root / 'ImageSets/Main/trainval.txt'
    for line in ('../a', '..', 'a/b', 'a' * 256, 'a\x07', 'a\x00', '\udcff'):
        split.write_text(f'c\n{line}\n', errors='surrogateescape')
        with pytest.raises(
            AnnotationError, match=r'trainval\.txt, line 2: Expected (the name|text)'
        ):
            VOCSubset(str(root), classes=CLASSES)


def test_subsets_and_wrappers_of_mmpretrain_and_mmengine_work(root):
    dataset = VOCSubset(str(root), classes=CLASSES)
    assert names(dataset.get_subset(2)) == list('ab')
    assert names(dataset.get_subset([3, 0])) == list('da')
    assert names(dataset.get_subset(-1)) == ['d']
    assert names(VOCSubset(str(root), classes=CLASSES, indices=[1])) == ['b']
    balanced = ClassBalancedDataset(dataset, oversample_thr=0.5)
    assert Counter(balanced.repeat_indices)[1] == 2
    assert [list(labels) for labels in dataset.get_gt_labels()] == [[1, 2], [0], [1], []]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.get_data_info(0)['gt_label'] == [1, 2]
    lazy = VOCSubset(str(root), classes=CLASSES, lazy_init=True)
    assert lazy.metainfo['classes'] == tuple(CLASSES)
    assert len(lazy) == 4
    assert lazy.data_list.labels.dense().shape == (4, 3)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ('split', 'images', 'two_or_more'),
    [('trainval', 1038, 460), ('test', 587, 255), ('train', 686, None), ('val', 352, None)],
)
def test_real_labels_are_those_of_an_independent_count(data_root, split, images, two_or_more):
    root = data_root / 'VOCdevkit/VOC2012'
    dataset = VOCSubset(str(root), split, pipeline=WHOLE)
    assert len(dataset) == images
    if two_or_more:
        assert (dataset.data_list.labels.dense() == 1).sum(1).__ge__(2).sum() == two_or_more
    scores = dataset.data_list.labels.dense()
    ids = (root / 'ImageSets/Main' / f'{split}.txt').read_text().split()
    for i, name in enumerate(ids):
        plain, difficult, boxes = set(), set(), []
        for found in ET.parse(root / 'Annotations' / f'{name}.xml').getroot().iter('object'):
            c = dataset.CLASSES.index(found.findtext('name'))
            (difficult if found.findtext('difficult') == '1' else plain).add(c)
            boxes.append(
                [
                    float(found.find('bndbox').findtext(corner))
                    for corner in ('xmin', 'ymin', 'xmax', 'ymax')
                ]
            )
        assert set(np.flatnonzero(scores[i] == 1)) == plain
        assert set(np.flatnonzero(scores[i] == -1)) == difficult - plain
        np.testing.assert_array_equal(
            dataset.get_data_info(i)['gt_bboxes'], np.array(boxes) - [1, 1, 0, 0]
        )


@pytest.mark.real_data
def test_real_labels_without_difficult_objects_are_those_of_mmpretrain(data_root):
    root = str(data_root / 'VOCdevkit/VOC2012')
    theirs = DATASETS.build(dict(type='VOC', data_root=root, split='test'))
    ours = VOCSubset(root, 'test', difficult='negative')
    assert [ours.get_cat_ids(i) for i in range(len(ours))] == [
        sorted(theirs.get_cat_ids(i)) for i in range(len(theirs))
    ]
