import csv
import json

import numpy as np
import pytest

from mhc_plugin.apis.prediction_files import check_format, prediction_line, write_predictions


def results_of(classes, count=3):
    for index in range(count):
        yield dict(
            img_path=f'{index}.png',
            pred_scores=np.linspace(0.1, 0.9, len(classes)),
            pred_label=[1, 0],
            pred_class=[classes[1], classes[0]],
        )
    yield dict(img_path='bad.png', error='bad.png cannot be read as an image.')


def test_lines():
    lines = [prediction_line(result) for result in results_of(['cat', 'dog'], 1)]
    assert lines == [
        '0.png: dog 0.90, cat 0.10',
        'bad.png: not read: bad.png cannot be read as an image.',
    ]
    assert prediction_line(dict(img_path=None, pred_class=[], pred_label=[])) == '(array): (none)'


@pytest.mark.parametrize('classes', [['labels', 'file', 'error'], ['a,b', 'c"d', '犬']])
def test_any_name_of_a_class_can_be_told_from_the_other_columns(tmp_path, classes):
    write_predictions(results_of(classes), tmp_path / 'a.csv', classes)
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['file'] for row in rows] == ['0.png', '1.png', '2.png', 'bad.png']
    assert rows[0]['labels'] == f'{classes[1]}|{classes[0]}'
    assert [float(rows[0][f'score:{name}']) for name in classes] == [0.1, 0.5, 0.9]
    assert rows[3]['error'].startswith('bad.png cannot')
    write_predictions(results_of(classes), tmp_path / 'a.json', classes)
    rows = json.loads((tmp_path / 'a.json').read_text(encoding='utf-8'))
    assert rows[0] == dict(
        file='0.png', labels=[classes[1], classes[0]], scores=dict(zip(classes, [0.1, 0.5, 0.9]))
    )
    assert rows[3]['error'].startswith('bad.png cannot')


def test_the_separator_in_a_name_is_refused_before_anything_is_predicted(tmp_path):
    def never():
        pytest.fail('predicted')
        yield

    with pytest.raises(ValueError, match=r"without `\|`.* got 'cat\|dog'. Write a \.json file"):
        write_predictions(never(), tmp_path / 'a.csv', ['a', 'cat|dog'])
    check_format('a.json', ['cat|dog'])


def test_no_file_without_predictions(tmp_path):
    write_predictions([], tmp_path / 'a.json', ['a'])
    assert json.loads((tmp_path / 'a.json').read_text()) == []


@pytest.mark.parametrize('suffix', ['csv', 'json'])
def test_a_file_is_whole_or_not_there(tmp_path, suffix):
    def broken():
        yield from results_of(['a', 'b'])
        raise ValueError('no more')

    with pytest.raises(ValueError, match='no more'):
        write_predictions(broken(), tmp_path / f'a.{suffix}', ['a', 'b'])
    assert list(tmp_path.iterdir()) == []
