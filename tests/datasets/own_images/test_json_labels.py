"""Labels of one's own from OpenMMLab's JSON, and what both formats share."""

import json

import pytest
from mmengine.dataset import ClassBalancedDataset
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS, TRANSFORMS

CLASSES = ('cat', 'dog', 'horse')


def test_both_formats_say_the_same(dataset, tmp_path):
    assert dataset.metainfo['classes'] == CLASSES
    infos = [dataset.get_data_info(idx) for idx in range(len(dataset))]
    assert [info['img_path'] for info in infos] == [
        str(tmp_path / 'images' / name) for name in ('a.jpg', 'sub/b.jpg', 'c.jpg')
    ]
    assert [info['gt_label'] for info in infos] == [[0, 1], [], [2]]
    assert [info['gt_score'].tolist() for info in infos] == [[1, 1, 0], [0, 0, 0], [-1, 0, 1]]


def test_packed_samples_hold_both_targets(dataset):
    for transform in (dict(type='LoadImageFromFile'), dict(type='PackInputs')):
        dataset.pipeline.transforms.append(TRANSFORMS.build(transform))
    sample = dataset[2]['data_samples']
    assert sample.gt_label.tolist() == [2]
    assert sample.gt_score.tolist() == [-1, 0, 1]


@pytest.mark.parametrize('content', [b'', b'no image', b'\xff\xd8\xff\xe0 the start of one'])
def test_an_image_that_cannot_be_read_is_named(dataset, images, content):
    dataset.pipeline.transforms.append(TRANSFORMS.build(dict(type='LoadImageFromFile')))
    (images() / 'c.jpg').write_bytes(content)
    assert dataset[0]['img'].shape == (24, 32, 3)
    with pytest.raises(ValueError, match=r'images/c\.jpg: The image cannot be read'):
        dataset[2]


def test_other_errors_of_a_pipeline_are_left_as_they_are(dataset):
    dataset.pipeline.transforms.append(lambda sample: sample['none'])
    with pytest.raises(KeyError, match='none'):
        dataset[0]


def test_positives_are_what_balancing_reads(dataset):
    assert dataset.get_cat_ids(2) == [2]
    assert dataset.get_gt_labels().tolist() == [[0, 1], [], [2]]
    assert len(ClassBalancedDataset(dataset.get_subset([0, 2]), oversample_thr=0.9)) >= 2


def test_mmpretrain_reads_the_same_json(from_json, tmp_path):
    ours = from_json()
    theirs = MultiLabelDataset('own.json', data_root=str(tmp_path), data_prefix='images')
    assert theirs.metainfo['classes'] == list(CLASSES)
    for idx in range(3):
        info = ours.get_data_info(idx)
        assert {key: info[key] for key in theirs.get_data_info(idx)} == theirs.get_data_info(idx)


def test_json_classes_in_the_other_form_that_mmpretrain_reads(from_json):
    categories = [dict(id=i, category_name=CLASSES[i]) for i in (2, 0, 1)]
    assert from_json(metainfo=dict(categories=categories)).metainfo['classes'] == CLASSES


def test_json_classes_from_the_config(from_json):
    assert from_json(metainfo={}, classes=CLASSES).metainfo['classes'] == CLASSES
    assert from_json(classes=list(CLASSES)).metainfo['classes'] == CLASSES


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(metainfo={}), r"class names in argument `classes` or .*own\.json'"),
        (
            dict(classes=['dog', 'cat', 'horse']),
            r"own\.json.*\['cat', 'dog', 'horse'\], but got \['dog', 'cat', 'horse'\].*the order",
        ),
        (dict(classes=['cat', 'dog', 'cow']), r"only argument `classes` has \['cow'\]"),
        (dict(metainfo=dict(classes=['cat', 'cat'])), r"each class once, but got \['cat'\]"),
        (dict(metainfo={}, classes=['cat', 'dog', 'cat']), r"each class once, but got \['cat'\]"),
        (dict(data_list=[]), 'the file lists none'),
    ],
)
def test_json_whose_classes_do_not_fit(from_json, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_json(**arguments)


@pytest.mark.parametrize(
    ('fields', 'sentence'),
    [
        (dict(gt_label=[3]), r"image 'a\.jpg': Expected `gt_label` .* in 0\.\.2, but got \[3\]"),
        (dict(gt_label=[-1]), r'in 0\.\.2, but got \[-1\]'),
        (dict(gt_label=1), r'in 0\.\.2, but got 1'),
        (dict(gt_label=['cat']), r"in 0\.\.2, but got \['cat'\]"),
        (dict(), r'in 0\.\.2, but got None'),
        (dict(gt_label=[0, 0, 1]), r'but got \[0, 0, 1\]; .* whether it is there, write \[2\]'),
        (dict(gt_label=[True, False, True]), r'but got \[True, False, True\]; .*write \[0, 2\]'),
        (dict(gt_label=[True]), r'but got \[True\]\.'),
        (dict(gt_label=[1, 1]), r'distinct class indices in 0\.\.2, but got \[1, 1\]'),
        (dict(gt_label=[], unknown_label=[7]), r'`unknown_label` to be .*, but got \[7\]'),
        (dict(gt_label=[0, 1], unknown_label=[1]), r'either there or unknown, but \[1\] are both'),
        (dict(gt_label=[0], unknown_lable=[1]), r"a field 'unknown_lable'; did you mean `unk"),
        (dict(gt_labels=[0]), r"a field 'gt_labels'; did you mean `gt_label`"),
        (
            dict(gt_label=[0], unknown_label=[1], unknown_labels=[1]),
            'Expected one of unknown_label and',
        ),
    ],
)
def test_json_with_wrong_labels(from_json, fields, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        from_json([dict(img_path='a.jpg', **fields)])
    assert 'own.json' in str(error.value)


def test_unknown_labels_under_the_name_that_csv_has(from_json):
    dataset = from_json([dict(img_path='a.jpg', gt_label=[0], unknown_labels=[2], note='x')])
    assert dataset.get_data_info(0)['gt_score'].tolist() == [1, 0, -1]
    assert dataset.get_data_info(0)['note'] == 'x'


def test_images_of_a_json_are_there_and_once(from_json, warnings):
    sample = dict(img_path='a.jpg', gt_label=[])
    with pytest.raises(ValueError, match=r"each image once, but '\./a\.jpg' is image 2 and stands"):
        from_json([sample, dict(sample, img_path='./a.jpg')])
    assert len(from_json([sample, dict(sample, img_path='gone.jpg')])) == 1
    assert '1 of 2 images are not in' in warnings[0]
    with pytest.raises(ValueError, match=r"'gone\.jpg' to be in"):
        from_json([dict(sample, img_path='gone.jpg')], missing_images='error')


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'{"metainfo": {},\n "data_list": [}', r'own\.json, line 2: The JSON is broken'),
        (b'[{"image": "a.jpg"}]', "Expected OpenMMLab's JSON, .*convert"),
        (b'{"metainfo": {"classes": ["cat"]}, "data_list": [7]}', 'an object with `img_path`'),
    ],
)
def test_files_that_are_no_such_json(build, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        build('JSONMultiLabelDataset', 'own.json', content)


def test_json_in_other_encodings(build):
    text = json.dumps(
        dict(metainfo=dict(classes=['é']), data_list=[dict(img_path='a.jpg', gt_label=[0])]),
        ensure_ascii=False,
    )
    for encoding in ('utf-8-sig', 'utf-16'):
        dataset = build('JSONMultiLabelDataset', 'own.json', text.encode(encoding))
        assert dataset.metainfo['classes'] == ('é',)


@pytest.mark.parametrize('kind', ['JSONMultiLabelDataset', 'CSVMultiLabelDataset'])
def test_a_missing_file_says_what_to_do(kind, tmp_path):
    cfg = dict(type=kind, ann_file='gone', data_root=str(tmp_path), classes=CLASSES)
    with pytest.raises(FileNotFoundError, match=r"gone' does not exist: set MHC_DATA_ROOT"):
        DATASETS.build(cfg)
