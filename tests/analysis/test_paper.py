"""The paper's tables against loops written out, and the search against counts by hand."""

import itertools

import numpy as np
import pytest

from mhc_plugin.analysis import paper


@pytest.fixture(scope='module')
def tables():
    return paper.paper_tables()


def test_tables_hold_what_the_paper_prints(tables):
    assert {name: len(rows) for name, rows in tables.items()} == {
        'table1': 12, 'table2': 12, **{f'table{n}': 24 for n in (3, 4, 5, 6, 7)},
    }  # fmt: skip
    first = dict(backbone='seresnet50', topk=4, model='Baseline', accuracy=59.91, precision=49.88)
    assert tables['table1'][0] == dict(first, hamming_loss=40.09)


def test_constant_rows(tables):
    assert len(paper.constant_rows([*tables['table3'], *tables['table4']])) == 16
    # The same classes for every image: their recall is 100, that of the others 0.
    targets = np.random.RandomState(0).rand(200, 10) < 0.4
    recall = np.mean([100.0 if c in (2, 5) else 0.0 for c in range(10)])
    share = targets[:, [2, 5]].mean(0).sum()
    predicted = np.zeros((200, 10), bool)
    predicted[:, [2, 5]] = True
    row = dict(
        topk=2,
        recall=recall,
        accuracy=100 * (predicted == targets).mean(),
        precision=100 * share / 10,
    )
    assert paper.constant_rows([row, dict(row, recall=20.01)]) == [row]
    assert paper.labels_of_a_constant_row(row) == pytest.approx((targets.sum(1).mean(), share))


def test_what_constant_rows_give_away(tables):
    voc = paper.labels_of_a_constant_row(paper.constant_rows(tables['table3'])[0])
    assert voc == pytest.approx((2.288, 0.759))
    openimages = {
        row['topk']: paper.labels_of_a_constant_row(row)
        for row in paper.constant_rows(tables['table4'])
        if row['precision'] in (6.28, 25.67)
    }
    assert openimages[1] == pytest.approx((3.562, 0.628))
    assert openimages[5] == pytest.approx((3.562, 2.567))


def test_repeats_and_sums(tables):
    rows = [dict(a=1, b=2), dict(a=1, b=3), dict(a=1, b=2)]
    assert paper.repeated_rows(rows, ('a', 'b')) == [rows[0], rows[2]]
    rows = [dict(accuracy=60.0, hamming_loss=40.1), dict(accuracy=60.0, hamming_loss=40.11)]
    assert paper.rows_off_100(rows) == rows[1:]
    counts = [(len(found), number) for _, found, number in paper.findings()]
    assert counts == [(16, 48), (7, 24), (9, 72), (50, 144)]


def test_the_k_of_the_ablations():
    for dataset, k in (('combined0', 4), ('combined1', 4), ('voc', 5)):
        assert paper.ablation_topk(dataset, 'Baseline') == k
        assert paper.ablation_topk(dataset, 'MultiFC') == k
    assert paper.ablation_topk('openimages', 'Baseline') == 5
    assert paper.ablation_topk('openimages', 'MultiFC') == 1


def test_choices_against_loops():
    classes = [f'c{i}' for i in range(12)]
    present = np.random.RandomState(0).rand(80, 12) < 0.45
    found = paper.count_choices(classes, present)
    choices = list(itertools.combinations(range(12), 10))
    assert len(found.labels) == len(choices)
    for i in range(len(found.labels)):
        chosen = np.flatnonzero(found.chosen[i])
        assert tuple(chosen) in choices
        labels = present[:, chosen].sum(1)
        kept = present[(labels >= 2) & (labels <= 7)]
        assert found.num_images[i] == len(kept)
        assert found.labels[i] == pytest.approx(kept[:, chosen].sum(1).mean())
        expected = np.zeros(12)
        expected[chosen] = kept[:, chosen].mean(0)
        np.testing.assert_allclose(found.shares[i], expected)
    share = found.shares[7].max()
    assert 7 in found.fitting(found.labels[7] + 0.002, share - 0.002)
    assert 7 not in found.fitting(found.labels[7] + 0.004, share)
    assert 7 not in found.fitting(found.labels[7], share + 2)


def test_too_few_classes():
    with pytest.raises(ValueError, match='Expected 10 to 24 classes to choose from, but got 9'):
        paper.count_choices(['c'] * 9, np.ones((3, 9), bool))


def test_files_of_other_classes(tmp_path):
    (tmp_path / 'a.csv').write_text('image,cat,dog\n1,1,-1\n2,0,1\n')
    (tmp_path / 'b.csv').write_text('image,cat\n1,1\n')
    classes, present = paper.read_voc_labels([tmp_path / 'a.csv'], difficult=True)
    assert classes == ('cat', 'dog')
    assert present.tolist() == [[True, False], [True, True]]
    assert not paper.read_voc_labels([tmp_path / 'a.csv'], difficult=False)[1][1, 0]
    with pytest.raises(ValueError, match=r'Expected .*b.csv to have the classes'):
        paper.read_voc_labels([tmp_path / 'a.csv', tmp_path / 'b.csv'], difficult=True)


@pytest.mark.real_data
def test_no_ten_classes_of_voc2007_fit_without_difficult_objects(data_root):
    paths = [data_root / 'voc-labels' / f'voc2007_{split}.csv' for split in ('trainval', 'test')]
    strict = paper.count_choices(*paper.read_voc_labels(paths, difficult=False))
    assert strict.labels.max() < 2.285
    counted = paper.count_choices(*paper.read_voc_labels(paths, difficult=True))
    fits = counted.fitting(2.288, 0.759)
    assert len(fits) == 26
    assert counted.chosen[fits, counted.classes.index('person')].all()
