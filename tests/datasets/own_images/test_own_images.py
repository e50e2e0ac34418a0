"""Labels of one's own, from JSON and CSV, with every way to get them wrong."""

import json

import pytest
from mmengine.dataset import ClassBalancedDataset
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS

import mhc_plugin.datasets  # noqa: F401  (registers them)

CLASSES = ('cat', 'dog', 'horse')
SAMPLES = [
    dict(img_path='a.jpg', gt_label=[0, 1]),
    dict(img_path='sub/b.jpg', gt_label=[]),
    dict(img_path='c.jpg', gt_label=[2], unknown_label=[0]),
]
SCORES = [[1, 1, 0], [0, 0, 0], [-1, 0, 1]]
TABLE = 'file,labels,unknown_labels\na.jpg,dog|cat,\nsub/b.jpg,,\nc.jpg,horse,cat\n'


@pytest.fixture
def from_json(tmp_path):
    def build(data_list=SAMPLES, metainfo=None, **kwargs):
        metainfo = dict(classes=CLASSES) if metainfo is None else metainfo
        (tmp_path / 'own.json').write_text(json.dumps(dict(metainfo=metainfo, data_list=data_list)))
        return DATASETS.build(
            dict(
                type='JSONMultiLabelDataset',
                data_root=str(tmp_path),
                ann_file='own.json',
                data_prefix='images',
                **kwargs,
            )
        )

    return build


@pytest.fixture
def from_csv(tmp_path):
    def build(text=TABLE, classes=CLASSES, **kwargs):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / 'own.csv').write_bytes(content)
        return DATASETS.build(
            dict(
                type='CSVMultiLabelDataset',
                data_root=str(tmp_path),
                ann_file='own.csv',
                data_prefix='images',
                classes=classes,
                **kwargs,
            )
        )

    return build


@pytest.fixture(params=['json', 'csv'])
def dataset(request):
    return request.getfixturevalue(f'from_{request.param}')()


def test_both_formats_say_the_same(dataset, tmp_path):
    assert dataset.metainfo['classes'] == CLASSES
    infos = [dataset.get_data_info(idx) for idx in range(len(dataset))]
    assert [info['img_path'] for info in infos] == [
        str(tmp_path / 'images' / sample['img_path']) for sample in SAMPLES
    ]
    assert [info['gt_label'] for info in infos] == [sample['gt_label'] for sample in SAMPLES]
    assert [info['gt_score'].tolist() for info in infos] == SCORES


def test_packed_samples_hold_both_targets(dataset, tmp_path, make_image):
    make_image(tmp_path / 'images' / 'c.jpg')
    for transform in (dict(type='LoadImageFromFile'), dict(type='PackInputs')):
        dataset.pipeline.transforms.append(_build(transform))
    sample = dataset[2]['data_samples']
    assert sample.gt_label.tolist() == [2]
    assert sample.gt_score.tolist() == [-1, 0, 1]


def _build(cfg):
    from mmpretrain.registry import TRANSFORMS

    return TRANSFORMS.build(cfg)


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


def test_json_without_class_names(from_json):
    with pytest.raises(ValueError, match=r"class names in argument `classes` or .*own\.json'"):
        from_json(metainfo={})


def test_json_with_two_lists_of_class_names(from_json):
    with pytest.raises(ValueError, match=r"\['cat', 'dog', 'horse'\], but got \['dog', 'cat'"):
        from_json(classes=['dog', 'cat', 'horse'])


@pytest.mark.parametrize(
    ('fields', 'sentence'),
    [
        (dict(gt_label=[3]), r"`gt_label` of '.*x\.jpg' to be .* in 0\.\.2, but got \[3\]"),
        (dict(gt_label=[-1]), r'in 0\.\.2, but got \[-1\]'),
        (dict(gt_label=1), r'in 0\.\.2, but got 1'),
        (dict(gt_label=['cat']), r"in 0\.\.2, but got \['cat'\]"),
        (dict(), r'in 0\.\.2, but got None'),
        (dict(gt_label=[], unknown_label=[7]), r'`unknown_label` of .*, but got \[7\]'),
        (dict(gt_label=[0, 1], unknown_label=[1]), r'either there or unknown, but \[1\] are both'),
    ],
)
def test_json_with_wrong_labels(from_json, fields, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        from_json([dict(img_path='x.jpg', **fields)])
    assert 'own.json' in str(error.value)


@pytest.mark.parametrize('kind', ['JSONMultiLabelDataset', 'CSVMultiLabelDataset'])
def test_a_missing_file_says_what_to_do(kind, tmp_path):
    cfg = dict(type=kind, ann_file='gone', data_root=str(tmp_path), classes=CLASSES)
    with pytest.raises(FileNotFoundError, match=r"gone' does not exist: set MHC_DATA_ROOT"):
        DATASETS.build(cfg)


@pytest.mark.parametrize(
    'text',
    [
        TABLE.replace('\n', '\r\n'),
        '\ufeff' + TABLE,
        TABLE.replace('dog|cat', ' dog | cat |'),
        'note,labels,file,unknown_labels\n,cat|dog,a.jpg,\n"x,y",,sub/b.jpg,\n,horse,c.jpg,cat\n',
        'file,labels,unknown_labels\n"a.jpg","dog|cat",\n\nsub/b.jpg,,\nc.jpg,horse,cat',
    ],
)
def test_csv_files_as_programs_write_them(from_csv, text):
    dataset = from_csv(text)
    assert [dataset.get_data_info(i)['gt_score'].tolist() for i in range(3)] == SCORES


def test_csv_with_another_separator_and_no_unknown_labels(from_csv):
    text = 'file,labels\na.jpg,sea horse; cat'
    dataset = from_csv(text, ('cat', 'sea horse'), label_separator=';')
    assert dataset.get_data_info(0)['gt_label'] == [0, 1]


def test_csv_classes_may_be_a_file(from_csv, tmp_path):
    (tmp_path / 'names.txt').write_text('\n'.join(CLASSES))
    assert from_csv(classes=str(tmp_path / 'names.txt')).get_data_info(0)['gt_label'] == [0, 1]


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('', r'to name the columns `file` and `labels` in its first line.*but got \[\]'),
        ('file;labels\na.jpg;cat\n', r"but got \['file;labels'\]"),
        ('file,labels\na.jpg,cow\n', r"line 2: .*\['cat', 'dog', 'horse'\].*but got \['cow'\]"),
        ('file,labels\na.jpg,cat;dog\n', r"but got \['cat;dog'\]"),
        ('file,labels\na.jpg,cat\nb.jpg\n', 'line 3: expected 2 fields'),
        ('file,labels\na.jpg,cat,dog\n', 'line 2: expected 2 fields'),
        ('file,labels\na.jpg,cat\na.jpg,dog\n', "line 3: .*'a.jpg' stands in line 2, too"),
        ('file,labels,unknown_labels\na.jpg,cat,cat\n', r'line 2: .*\[0\] are both'),
        (b'file,labels\n\xff.jpg,cat\n', 'to be a CSV file in UTF-8, but reading it failed'),
        (f'file,labels\n{"x" * 200000},cat\n', 'reading it failed: field larger than'),
    ],
)
def test_csv_files_that_are_wrong(from_csv, text, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        from_csv(text)
    assert 'own.csv' in str(error.value)


def test_an_empty_separator_is_refused(from_csv):
    with pytest.raises(ValueError, match="`label_separator` to be a text, but got ''"):
        from_csv(label_separator='')
