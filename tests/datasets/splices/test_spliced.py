"""Composites, and how classes and images are dealt to them: distinct, even, frozen."""

import hashlib
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import ClassBalancedDataset
from mmpretrain.registry import DATASETS

import mhc_plugin.datasets  # noqa: F401  (registers them)
from mhc_plugin.analysis.swap_test import SwappedSplices
from mhc_plugin.datasets.splices.spliced import plan_splices

CLASSES = ('ant', 'bee', 'cat', 'dog', 'elk')


@pytest.fixture
def pool(tmp_path, make_image):
    """Five classes of three to seven images: folders of class names."""
    seed = 0
    for label, name in enumerate(CLASSES):
        for number in range(3 + label):
            seed += 1
            make_image(tmp_path / 'pool' / name / f'{number}.png', size=(6, 8), seed=seed)
    return dict(type='CustomDataset', data_root=str(tmp_path / 'pool'))


def splice(source, **kwargs):
    kwargs.setdefault('tile_size', 8)
    kwargs.setdefault('length', 20)
    return DATASETS.build(dict(type='SplicedDataset', source=source, **kwargs))


def tile_paths(dataset):
    return [
        [tile['img_path'] for tile in dataset.get_data_info(idx)['tiles']]
        for idx in range(len(dataset))
    ]


def flat(rows):
    return [path for row in rows for path in row]


def contents(dataset):
    paths = flat(tile_paths(dataset))
    return {hashlib.sha1(Path(path).read_bytes()).digest() for path in paths}


def test_labels_say_what_the_tiles_show(pool):
    classes = ('dog', 'ant', 'elk', 'bee')
    dataset = splice(pool, classes=classes)
    assert dataset.metainfo['classes'] == classes
    assert len(dataset) == 20
    for idx, paths in enumerate(tile_paths(dataset)):
        info = dataset.get_data_info(idx)
        cells = [classes.index(Path(path).parent.name) for path in paths]
        assert info['gt_cells'].tolist() == [cells[:2], cells[2:]]
        assert info['gt_cells'].dtype == torch.int64
        assert info['gt_label'] == sorted(cells)
        assert info['gt_score'].dtype == np.float32
        assert np.flatnonzero(info['gt_score'] == 1).tolist() == sorted(cells)
        assert set(info['gt_score'].tolist()) <= {0.0, 1.0}


def test_of_some_classes_labels_and_cells_are_numbered_anew(pool):
    whole, some = splice(pool), splice(pool, keep_classes=['elk', 'bee', 'cat'])
    assert some.metainfo['classes'] == ('bee', 'cat', 'elk')
    new = {0: -1, 1: 0, 2: 1, 3: -1, 4: 2}
    for idx in range(20):
        before, after = whole.get_data_info(idx), some.get_data_info(idx)
        assert after['tiles'] == before['tiles']
        assert after['gt_score'].tolist() == before['gt_score'][[1, 2, 4]].tolist()
        assert after['gt_label'] == [new[c] for c in before['gt_label'] if new[c] >= 0]
        assert after['gt_cells'].tolist() == [
            [new[c] for c in row] for row in before['gt_cells'].tolist()
        ]
    with pytest.raises(ValueError, match='`dataset` to have all its classes'):
        SwappedSplices(some)


def test_packed_samples_carry_targets_and_cells(pool):
    pipeline = [dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))]
    dataset = splice(pool, grid=(1, 3), pipeline=pipeline)
    sample = dataset[4]
    assert sample['inputs'].shape == (3, 8, 24)
    data_sample = sample['data_samples']
    info = dataset.get_data_info(4)
    assert torch.equal(data_sample.gt_cells, info['gt_cells'])
    assert data_sample.gt_cells.dtype == torch.int64
    assert data_sample.gt_cells.shape == (1, 3)
    assert data_sample.gt_label.tolist() == info['gt_label']
    assert data_sample.gt_score.tolist() == info['gt_score'].tolist()
    # As samples travel from a worker, and to a device.
    assert torch.equal(pickle.loads(pickle.dumps(data_sample)).gt_cells, info['gt_cells'])
    assert isinstance(data_sample.to('cpu').gt_cells, torch.Tensor)


def test_all_classes_of_the_source_by_default(pool):
    dataset = splice(pool)
    assert dataset.metainfo['classes'] == CLASSES


@pytest.mark.parametrize('length', [1, 7, 40])
def test_classes_and_images_are_used_evenly(pool, length):
    paths = flat(tile_paths(splice(pool, length=length)))
    per_class = Counter(Path(path).parent.name for path in paths)
    uses = [per_class[name] for name in CLASSES]
    assert max(uses) - min(uses) <= 1
    for name in CLASSES:
        files = list(Path(pool['data_root'], name).iterdir())
        uses = [paths.count(str(file)) for file in files]
        assert max(uses) - min(uses) <= 1


def test_same_seed_same_composites_wherever_the_images_lie(pool, tmp_path):
    shutil.copytree(tmp_path / 'pool', tmp_path / 'elsewhere')
    moved = dict(pool, data_root=str(tmp_path / 'elsewhere'))
    here, there = (tile_paths(splice(source, seed=3)) for source in (pool, moved))
    assert [[Path(p).parts[-2:] for p in row] for row in here] == [
        [Path(p).parts[-2:] for p in row] for row in there
    ]
    assert tile_paths(splice(pool, seed=4)) != here


def test_what_the_other_side_holds_is_left_out(pool, tmp_path, make_image):
    other = tmp_path / 'other'
    for name in CLASSES:
        make_image(other / name / '1.png', seed=100 + CLASSES.index(name))  # a known name
    shutil.copy(tmp_path / 'pool/elk/6.png', other / 'ant' / 'copy.png')  # a known content
    test = dict(type='CustomDataset', data_root=str(other))
    train = splice(pool, exclude=test, length=60)
    used = {Path(path) for path in flat(tile_paths(train))}
    assert used == {
        path
        for path in (tmp_path / 'pool').rglob('*.png')
        if path.name != '1.png' and path != tmp_path / 'pool/elk/6.png'
    }
    assert not contents(train) & contents(splice(test))
    by_content = splice(pool, exclude=test, exclude_by=('content',), length=60)
    used = {Path(path) for path in flat(tile_paths(by_content))}
    assert len(used) == len(list((tmp_path / 'pool').rglob('*.png'))) - 1
    by_name = splice(pool, exclude=test, exclude_by=['name'], length=60)
    assert str(tmp_path / 'pool/elk/6.png') in flat(tile_paths(by_name))


def test_what_is_left_out_is_counted(pool, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mhc_plugin.datasets.splices.spliced.print_log', lambda line, **kwargs: lines.append(line)
    )
    (tmp_path / 'other' / 'x').mkdir(parents=True)
    shutil.copy(tmp_path / 'pool/elk/6.png', tmp_path / 'other/x/copy.png')
    splice(pool, exclude=dict(type='CustomDataset', data_root=str(tmp_path / 'other')))
    assert len(lines) == 1
    assert '1 of 25 source images' in lines[0]
    assert '(0 by name, 1 by content)' in lines[0]


def test_one_pool_is_split_by_folds(pool, tmp_path):
    # A copy of an image of the other fold must not come in by another name.
    for number in range(3):
        shutil.copy(tmp_path / f'pool/elk/{number}.png', tmp_path / f'pool/elk/copy{number}.png')
    train, test = (
        dict(type='KFoldDataset', dataset=pool, num_splits=2, seed=0, test_mode=test_mode)
        for test_mode in (False, True)
    )
    assert contents(splice(train)) & contents(splice(test))
    left, right = splice(train, exclude=test), splice(test)
    assert not contents(left) & contents(right)
    assert not set(flat(tile_paths(left))) & set(flat(tile_paths(right)))


def test_a_class_without_images_is_named(pool):
    with pytest.raises(ValueError, match=r"none is left of \['ant', 'bee', 'cat', 'dog', 'elk'\]"):
        splice(pool, exclude=pool)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(tile_size=0), '`tile_size` to be an int of at least 1, but got 0'),
        (dict(tile_size=7.5), '`tile_size` to be an int of at least 1, but got 7.5'),
        (dict(length=0), '`length` to be an int of at least 1, but got 0'),
        (dict(grid=(2, 0)), r'`grid` to be a sequence of ints of at least 1, but got \(2, 0\)'),
        (dict(grid=(2,)), r'`grid` to be rows and columns, but got \(2,\)'),
        (dict(grid=2), '`grid` to be a sequence of ints of at least 1, but got 2'),
        (dict(seed=None), '`seed` to be an int.*, but got None'),
        (dict(grid=(2, 3)), r'as many cells as there are classes, 5, but got 2 x 3 = 6'),
        (dict(classes=['ant', 'bee', 'cat']), r'classes, 3, but got 2 x 2 = 4'),
        (dict(classes=['ant', 'ant', 'bee', 'cat']), '`classes` to hold each class once'),
        (
            dict(classes=['ant', 'bee', 'cat', 'Dog']),
            r"source, \['ant'.*'Dog' \(did you mean 'dog'\?\)",
        ),
        (dict(exclude_by='name'), "`exclude_by` to hold 'name', 'content' or both, but got"),
        (dict(exclude_by=('pixels',)), "`exclude_by` to hold 'name', 'content' or both, but got"),
    ],
)
def test_wrong_arguments(pool, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        splice(pool, **arguments)


def test_wrong_classes_are_told_at_once_where_loading_is_put_off(pool):
    with pytest.raises(ValueError, match='2 x 2 = 4'):
        splice(pool, classes=['ant'], lazy_init=True)


def test_loading_can_be_put_off():
    dataset = splice(dict(type='CustomDataset', data_root='nowhere'), lazy_init=True)
    with pytest.raises(FileNotFoundError, match='set MHC_DATA_ROOT'):
        dataset.full_init()


@pytest.mark.parametrize('serialize_data', [True, False])
def test_mmengine_subsets_and_copies(pool, serialize_data):
    dataset = splice(pool, serialize_data=serialize_data)
    subset = dataset.get_subset([5, 2])
    expected = [tile_paths(dataset)[idx] for idx in (5, 2)]
    assert tile_paths(subset) == expected
    assert tile_paths(splice(pool, indices=6)) == tile_paths(dataset)[:6]
    assert tile_paths(pickle.loads(pickle.dumps(dataset))) == tile_paths(dataset)


def test_class_balanced_dataset_reads_the_positives(pool):
    dataset = splice(pool)
    assert dataset.get_cat_ids(3) == dataset.get_data_info(3)['gt_label']
    assert dataset.get_gt_labels().tolist() == [dataset.get_cat_ids(i) for i in range(20)]
    assert len(ClassBalancedDataset(dataset, oversample_thr=0.9)) >= 20


def test_composites_are_small(pool):
    # A path of each tile, a few numbers, and nothing that grows with the images.
    dataset = splice(pool, length=200)
    longest = max(len(path) for path in flat(tile_paths(dataset)))
    assert dataset.data_bytes.nbytes / 200 < 4 * longest + 300


def test_a_broken_tile_stops_training_and_is_named(pool, tmp_path):
    for path in (tmp_path / 'pool').rglob('*.png'):
        path.write_bytes(b'broken')
    dataset = splice(pool, pipeline=[dict(type='ComposeTiles')])
    with pytest.raises(ValueError, match=r"Expected tile '.*\.png' to be an image"):
        dataset[0]


def test_the_printed_form(pool):
    assert 'Grid: \t2 x 2 tiles of 8 px' in repr(splice(pool))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_images_in_memory(split):
    dataset = splice(dict(type='SklearnDigits', split=split), pipeline=[dict(type='ComposeTiles')])
    results = dataset[0]
    assert results['img'].shape == (16, 16, 3)
    assert len({tile['img'].tobytes() for tile in results['tiles']}) == 4


@st.composite
def splices(draw):
    pools = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    num_cells = draw(st.integers(1, len(pools)))
    return pools, num_cells, draw(st.integers(1, 60)), draw(st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None)
@given(splices())
def test_classes_of_a_composite_are_distinct(case):
    classes, _ = plan_splices(*case)
    assert all(len(set(row)) == len(row) for row in classes.tolist())


@settings(max_examples=150, deadline=None)
@given(splices())
def test_uses_differ_by_at_most_one_at_any_time(case):
    pools, num_cells, length, _ = case
    classes, images = plan_splices(*case)
    for end in range(1, length + 1):
        uses = np.bincount(classes[:end].ravel(), minlength=len(pools))
        assert uses.sum() == end * num_cells
        assert uses.max() - uses.min() <= 1
    for label, num_images in enumerate(pools):
        uses = np.bincount(images[classes == label], minlength=num_images)
        assert len(uses) == num_images
        assert uses.max() - uses.min() <= 1


@settings(max_examples=60, deadline=None)
@given(splices(), st.integers(1, 30))
def test_first_composites_do_not_depend_on_length(case, more):
    pools, num_cells, length, seed = case
    longer = plan_splices(pools, num_cells, length + more, seed)
    for short, long in zip(plan_splices(*case), longer):
        assert np.array_equal(short, long[:length])


def test_a_literal_plan_stays_what_it_is():
    # A change here would change every spliced dataset that was ever reported on.
    classes, images = plan_splices([3, 2, 4, 2, 5], num_cells=4, length=3, seed=7)
    assert classes.tolist() == [[0, 3, 1, 4], [2, 4, 3, 1], [2, 0, 1, 4]]
    assert images.tolist() == [[2, 1, 0, 1], [1, 4, 0, 1], [0, 0, 1, 3]]


def test_seeds_give_different_plans():
    left, right = (plan_splices([9] * 10, 4, 50, seed) for seed in (0, 1))
    assert not np.array_equal(left[0], right[0])
    assert not np.array_equal(left[1], right[1])


@pytest.mark.parametrize('num_cells', [2, 4])
def test_no_pair_and_no_place_is_preferred(num_cells):
    # 12,000 composites of 6 classes: expectations below with a standard deviation near 1 %.
    classes, _ = plan_splices([1] * 6, num_cells, 12000, seed=0)
    present = np.zeros((len(classes), 6))
    np.put_along_axis(present, classes, 1, axis=1)
    together = (present.T @ present)[~np.eye(6, dtype=bool)]
    expected = 12000 * num_cells * (num_cells - 1) / (6 * 5)
    assert np.abs(together / expected - 1).max() < 0.05
    for place in range(num_cells):
        uses = np.bincount(classes[:, place], minlength=6)
        assert np.abs(uses / 2000 - 1).max() < 0.08
