"""Names of classes: distinct in a list, and the same in two."""

import pytest

from mhc_plugin.datasets import (
    CSVMultiLabelDataset,
    SplicedDataset,
    VOCSubset,
    class_list_difference,
    num_classes_difference,
)
from mhc_plugin.datasets.class_lists import near_names, read_class_list, shown


def test_lists_and_files_of_names(tmp_path):
    assert read_class_list(['cat', 'dog']) == ('cat', 'dog')
    assert read_class_list(('e\u0301',)) == ('é',)
    path = tmp_path / 'classes.txt'
    for content in (
        b'cat\ndog',
        b'\xef\xbb\xbfcat\r\n\r\n dog \r\n',
        'cat\ndog\n'.encode('utf-16'),
    ):
        path.write_bytes(content)
        assert read_class_list(str(path)) == ('cat', 'dog')


@pytest.mark.parametrize(
    ('classes', 'sentence'),
    [
        (['cat', 'dog', 'cat'], r"`classes` to hold each class once, but got \['cat'\]"),
        (['é', 'e\u0301'], r"each class once, but got \['é'\]"),
        ([], 'names of classes, but got none'),
        (['cat', 3], r"names of classes, but got \['cat', 3\]"),
        (['cat', ' '], r'names of classes'),
    ],
)
def test_lists_that_are_no_lists_of_distinct_names(classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_class_list(classes)


def test_files_of_names_that_are_wrong_are_named(tmp_path):
    path = tmp_path / 'classes.txt'
    for content, sentence in (
        (b'cat\ndog\ncat\n', r'classes\.txt: Expected the file to hold each class once'),
        (b'\n\n', 'classes.txt: .*but got none'),
        (b'cat\n\xe9\n', r'classes\.txt, line 2: Expected text in UTF-8'),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_class_list(str(path))
    with pytest.raises(FileNotFoundError, match='`classes`'):
        read_class_list(str(tmp_path / 'none.txt'))


def test_every_dataset_refuses_a_class_that_comes_twice(tmp_path, make_voc):
    (tmp_path / 'a.csv').write_text('file,labels\n')
    voc = make_voc(tmp_path / 'voc', {'1': [('cat', 0)]})
    for make in (
        lambda classes: CSVMultiLabelDataset(str(tmp_path / 'a.csv'), classes=classes),
        lambda classes: VOCSubset(str(voc), classes=classes),
        lambda classes: SplicedDataset(dict(type='SklearnDigits', split='test'), classes=classes),
        lambda classes: CSVMultiLabelDataset(
            str(tmp_path / 'a.csv'), metainfo=dict(classes=classes)
        ),
    ):
        with pytest.raises(ValueError, match=r"each class once, but got \['cat'\]"):
            make(['cat', 'dog', 'cat'])


def test_two_lists_agree_by_name():
    def difference(first, second):
        return class_list_difference(first, second, 'the training data', 'the validation data')

    assert difference(['a', 'b'], ('a', 'b')) is None
    assert difference(['é'], ['e\u0301']) is None
    assert difference(['a', 'b', 'c'], ['a', 'c', 'b']) == (
        'Expected the classes of the validation data to be those of the training data in the same '
        "order, ['a', 'b', 'c'], but got ['a', 'c', 'b']: they differ in the order (class 1 is 'b' "
        "and 'c')."
    )
    assert "only the training data has ['b']; only the validation data has ['c']" in difference(
        ['a', 'b'], ['a', 'c']
    )
    assert "only the training data has ['b']." in difference(['a', 'b'], ['a'])
    many = [f'class {i}' for i in range(601)]
    assert len(difference(many, many[::-1])) < 700


def test_a_head_has_as_many_outputs_as_there_are_classes():
    assert num_classes_difference(2, ['a', 'b'], 'train_dataloader.dataset') is None
    assert num_classes_difference(4, ['a', 'b'], 'train_dataloader.dataset') == (
        'Expected `model.head.num_classes` to be the number of classes of '
        "`train_dataloader.dataset`, 2 (['a', 'b']), but got 4."
    )


def test_names_that_are_near():
    assert near_names('Dog', ['dog', 'cat']) == " (did you mean 'dog'?)"
    assert near_names('aeroplan', ['aeroplane', 'cat']) == " (did you mean 'aeroplane'?)"
    assert near_names('xyz', ['dog']) == ''


def test_long_lists_are_shortened():
    assert shown(['a']) == "['a']"
    assert shown(list('abcdefghijklmno')).endswith("'l', ... 3 more]")
