import csv
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets import AnnotationError
from mhc_plugin.datasets.openimages import csv_files as openimages_csv
from mhc_plugin.datasets.openimages.csv_files import (
    iter_box_blocks,
    iter_label_blocks,
    read_class_descriptions,
)
from mhc_plugin.datasets.openimages.image_index import ImageIndex

CLASSES = {'/m/cat': 0, '/m/dog': 1}
LABEL_HEADER = 'ImageID,Source,LabelName,Confidence'
BOX_HEADER = 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsDepiction'


def read_labels(path):
    """All labels as a set of (image, class, value), and the images in the index."""
    index = ImageIndex()
    blocks = list(iter_label_blocks(path, CLASSES, index))
    names = _names_by_position(index)
    return {(names[image], int(c), int(v)) for block in blocks for image, c, v in zip(*block)}, set(
        names.values()
    )


def read_boxes(path, depictions=True):
    index = ImageIndex()
    blocks = list(iter_box_blocks(path, CLASSES, index, depictions))
    names = _names_by_position(index)
    return [
        (names[image], int(c), *corners.astype(float).round(4).tolist())
        for block in blocks
        for image, c, corners in zip(*block)
    ]


def _names_by_position(index):
    names, positions = index.names()
    return {position: name.decode() for name, position in zip(names, positions.tolist())}


def write(path, *lines, end='\n', bom=False):
    path.write_bytes(
        (b'\xef\xbb\xbf' if bom else b'') + ''.join(line + end for line in lines).encode()
    )
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'a.csv'


@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('bom', [False, True])
def test_labels_are_read_by_column_name(path, end, bom):
    write(
        path,
        'Confidence,LabelName,ImageID',
        '1,/m/cat,b2',
        '0.0,/m/dog,a1',
        '1.0,/m/dog,b2',
        '0,/m/tree,c3',
        '',
        '0,"/m/cat",a1',
        end=end,
        bom=bom,
    )
    labels, images = read_labels(path)
    assert labels == {('b2', 0, 1), ('a1', 1, 0), ('b2', 1, 1), ('a1', 0, 0)}
    # An image of which only other classes are known is there, too.
    assert images == {'a1', 'b2', 'c3'}


def test_blocks_join_without_a_seam(path, monkeypatch):
    monkeypatch.setattr(openimages_csv, 'BLOCK_ROWS', 3)
    rows = [(f'{i % 7:x}', '/m/cat' if i % 2 else '/m/dog', i % 2) for i in range(20)]
    write(path, LABEL_HEADER, *(f'{i},verification,{m},{v}' for i, m, v in rows), '', '', '', '')
    assert read_labels(path)[0] == {(i, CLASSES[m], v) for i, m, v in rows}


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('a,b,/m/cat', "Expected 4 fields as in the header, but got 3: 'a,b,/m/cat'"),
        ('a,b,/m/cat,1,', 'Expected 4 fields as in the header, but got 5'),
        ('a,b,/m/cat,0.5', "Confidence to be 1 (present) or 0 (verified absent), but got '0.5'"),
        ('a,b,/m/cat,', "Confidence to be 1 (present) or 0 (verified absent), but got ''"),
        ('a,b,/m/tree,nan', "Confidence to be 1 (present) or 0 (verified absent), but got 'nan'"),
        (
            'a/b,b,/m/cat,1',
            'Expected ImageID to be up to 64 letters, digits, "_", "-" and ".", but',
        ),
        (',b,/m/cat,1', "but got ''"),
        ('ä,b,/m/cat,1', 'Expected ImageID'),
        ('a' * 65 + ',b,/m/cat,1', 'Expected ImageID'),
        ('a,b,"/m/cat"x,1', 'The CSV is broken'),
        ('a,b,"/m/cat,1', 'The CSV is broken: unexpected end of data'),
    ],
)
def test_bad_label_rows_are_reported_with_their_line(path, row, message):
    good = 'a,b,/m/cat,1'
    last = row.count('"') == 1
    write(path, LABEL_HEADER, good, '', *[good] * 5, row, *([] if last else [good]))
    with pytest.raises(AnnotationError) as caught:
        read_labels(path)
    assert message in str(caught.value)
    assert caught.value.line == 9
    assert caught.value.path == path


def test_error_in_a_later_block_has_its_line(path, monkeypatch):
    monkeypatch.setattr(openimages_csv, 'BLOCK_ROWS', 4)
    write(path, LABEL_HEADER, *['a,b,/m/cat,1'] * 10, 'a,b,/m/cat,2')
    with pytest.raises(AnnotationError, match=r'a\.csv, line 12: Expected Confidence'):
        read_labels(path)


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ([], "columns ImageID, LabelName, Confidence, but got '' without ImageID, LabelName"),
        (['a,verification,/m/cat,1'], 'without ImageID, LabelName, Confidence'),
        (['ImageID,LabelName'], "but got 'ImageID, LabelName' without Confidence"),
    ],
)
def test_missing_columns_are_named(path, lines, message):
    write(path, *lines)
    with pytest.raises(AnnotationError) as caught:
        read_labels(path)
    assert message in str(caught.value)
    assert caught.value.line == 1


def test_missing_file_is_named(tmp_path):
    for read in (read_labels, read_boxes, read_class_descriptions):
        with pytest.raises(FileNotFoundError, match=r'There is no file .*none\.csv'):
            read(tmp_path / 'none.csv')


def test_boxes_are_read_by_column_name_and_clipped(path):
    write(
        path,
        'YMin,YMax,XMin,XMax,LabelName,ImageID,IsGroupOf',
        '0.1,0.2,0.3,0.4,/m/cat,a,1',
        '0,1,-0.001,1.002,/m/dog,b,0',
        '0,0,0,0,/m/tree,c,0',
    )
    assert read_boxes(path) == [('a', 0, 0.3, 0.1, 0.4, 0.2), ('b', 1, 0.0, 0.0, 1.0, 1.0)]


def test_depictions_are_left_out_on_request(path):
    rows = [f'{name},x,/m/cat,1,0,1,0,1,{flag}' for name, flag in zip('abc', ('1', '0', '-1'))]
    write(path, BOX_HEADER, *rows)
    assert [box[0] for box in read_boxes(path)] == ['a', 'b', 'c']
    assert [box[0] for box in read_boxes(path, depictions=False)] == ['b', 'c']
    write(path, BOX_HEADER.replace(',IsDepiction', ''), 'a,x,/m/cat,1,0,1,0,1')
    assert len(read_boxes(path)) == 1
    with pytest.raises(AnnotationError, match='without IsDepiction'):
        read_boxes(path, depictions=False)


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('a,x,/m/cat,1,0,wide,0,1,0', "but got XMin='0', YMin='0', XMax='wide', YMax='1'"),
        ('a,x,/m/cat,1,0,nan,0,1,0', '0 <= XMin <= XMax <= 1'),
        ('a,x,/m/tree,1,0.5,0.4,0,1,0', '0 <= XMin <= XMax <= 1'),
        ('a,x,/m/cat,1,0,1,0.5,0.4,0', '0 <= YMin <= YMax <= 1'),
        ('a,x,/m/cat,1,0,12,0,1,0', '0 <= XMin <= XMax <= 1'),
        ('a b,x,/m/cat,1,0,1,0,1,0', 'Expected ImageID'),
        ('a,x,/m/cat,1,0,1,0,1,2', "Expected IsDepiction to be 1, 0 or -1 (unknown), but got '2'"),
        ('a,x,/m/cat,1,0,1,0,1', 'Expected 9 fields'),
    ],
)
def test_bad_box_rows_are_reported_with_their_line(path, row, message):
    good = 'a,x,/m/cat,1,0,1,0,1,0'
    write(path, BOX_HEADER, good, good, row, good)
    with pytest.raises(AnnotationError) as caught:
        read_boxes(path, depictions=False)
    assert message in str(caught.value)
    assert caught.value.line == 4


@pytest.mark.parametrize('header', [[], ['LabelName,DisplayName']])
def test_class_descriptions_with_and_without_header(path, header):
    write(
        path,
        *header,
        '/m/1,Cat',
        '/m/2,"Fiat 500 ""topolino"""',
        '/m/3,"Lemon, lime"',
        '/m/4,Spätzle',
        '/m/1,Cat',
    )
    assert read_class_descriptions(path) == {
        '/m/1': 'Cat',
        '/m/2': 'Fiat 500 "topolino"',
        '/m/3': 'Lemon, lime',
        '/m/4': 'Spätzle',
    }


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('/m/2', 'Expected a MID and a display name'),
        ('/m/2,', 'Expected a MID and a display name'),
        ('/m/2,a,b', 'Expected a MID and a display name'),
        ('/m/1,Dog', "Expected one name for '/m/1', but got 'Cat' and 'Dog'"),
    ],
)
def test_bad_class_descriptions_are_reported_with_their_line(path, row, message):
    write(path, '/m/1,Cat', row)
    with pytest.raises(AnnotationError, match=rf'a\.csv, line 2: {message}'):
        read_class_descriptions(path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ('name', 'rows'),
    [
        ('v2-annotations-human.csv', 9),
        ('v3-annotations-human.csv', 9),
        ('v5-train-annotations-human-imagelabels-boxable.csv', 4),
        ('v7-oidv7-val-annotations-human-imagelabels.csv', 24),
    ],
)
def test_published_label_files_are_read(data_root, name, rows):
    path = data_root / 'openimages-format' / name
    with path.open(encoding='utf-8', newline='') as file:
        expected = [
            (row['ImageID'], row['LabelName'], float(row['Confidence']))
            for row in csv.DictReader(file)
        ]
    assert len(expected) >= rows
    mids = sorted({mid for _, mid, _ in expected})
    index = ImageIndex()
    blocks = list(iter_label_blocks(path, {mid: i for i, mid in enumerate(mids)}, index))
    names = _names_by_position(index)
    assert [
        (names[image], mids[c], v) for block in blocks for image, c, v in zip(*block)
    ] == expected


@pytest.mark.real_data
@pytest.mark.parametrize(
    'name',
    [
        'v2-train-annotations-human-bbox.csv',
        'v2-validation-annotations-human-bbox.csv',
        'v3-train-annotations-human-bbox.csv',
        'v3-validation-annotations-human-bbox.csv',
        'v4-train-annotations-bbox.csv',
        'v4-test-annotations-bbox.csv',
        'v6-oidv6-train-annotations-bbox.csv',
    ],
)
def test_published_box_files_are_read(data_root, name):
    path = data_root / 'openimages-format' / name
    with path.open(encoding='utf-8', newline='') as file:
        expected = [
            [float(row[c]) for c in ('XMin', 'YMin', 'XMax', 'YMax')]
            for row in csv.DictReader(file)
        ]
        file.seek(0)
        mids = {row['LabelName'] for row in csv.DictReader(file)}
    blocks = list(
        iter_box_blocks(
            path, {mid: i for i, mid in enumerate(sorted(mids))}, ImageIndex(), depictions=True
        )
    )
    assert len(expected) > 2
    np.testing.assert_allclose(
        np.concatenate([block.corners for block in blocks]), expected, atol=1e-6
    )


@pytest.mark.real_data
@pytest.mark.parametrize(
    ('name', 'classes', 'mid', 'display_name'),
    [
        ('v1-dict.csv', 500, '/m/011_dp', 'skin-head percussion instrument'),
        ('v2-class-descriptions.csv', 15, '/m/03hgsf0', 'Lemon, lime and bitters'),
        ('v4-class-descriptions-boxable.csv', 601, '/m/011k07', 'Tortoise'),
        ('v6-oidv6-class-descriptions.csv', 2800, '/m/0100nhbf', "Sprenger's tulip"),
    ],
)
def test_published_class_files_are_read(data_root, name, classes, mid, display_name):
    names = read_class_descriptions(data_root / 'openimages-format' / name)
    assert len(names) >= classes
    assert names[mid] == display_name


@pytest.mark.real_data
def test_labels_of_a_machine_are_refused(data_root):
    for name in ('v1-labels.csv', 'v2-annotations-machine.csv', 'v3-annotations-machine.csv'):
        with pytest.raises(AnnotationError, match=r'line 2: .* from a machine are not verified'):
            read_labels(data_root / 'openimages-format' / name)


PIECES = st.sampled_from(
    [
        'ImageID',
        'Source',
        'LabelName',
        'Confidence',
        'XMin',
        'XMax',
        'YMin',
        'YMax',
        'IsDepiction',
        ',',
        ',',
        ',',
        '\n',
        '\n',
        '\r',
        '"',
        '""',
        '/m/cat',
        '/m/dog',
        'a',
        'b1',
        '1',
        '0',
        '1.0',
        '0.5',
        '-1',
        'nan',
        'inf',
        '1e999',
        ' ',
        '',
        '\x00',
        'ä',
        '\ufeff',
        '\ud83d',
        '../x',
        'x' * 70,
        '9' * 30,
    ]
)
VALID = st.sampled_from(
    [
        LABEL_HEADER + '\na,v,/m/cat,1\nb,v,/m/dog,0\n',
        BOX_HEADER + '\na,v,/m/cat,1,0,1,0,1,0\nb,v,/m/dog,1,0.5,0.75,0.25,0.5,1\n',
        '/m/cat,Cat\n/m/dog,"Dog, big"\n',
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 12), PIECES), max_size=5)
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=40).map(''.join),
    st.tuples(VALID, st.lists(PIECES, max_size=30).map(''.join)).map(''.join),
    st.tuples(VALID, EDITS).map(lambda pair: _edited(*pair)),
)
FUZZ = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _edited(text, edits):
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    return text


def check_damaged(path, content):
    if isinstance(content, str):
        content = content.encode('utf-8', errors='surrogatepass')
    path.write_bytes(content)
    for read in (
        read_labels,
        read_boxes,
        read_class_descriptions,
        lambda path: read_boxes(path, depictions=False),
    ):
        with suppress(AnnotationError):
            read(path)


@settings(max_examples=300, **FUZZ)
@given(content=TEXTS)
def test_damaged_csv_ends_in_errors_of_ours(tmp_path, content):
    check_damaged(tmp_path / 'a.csv', content)


@pytest.mark.fuzz
@settings(max_examples=10_000, **FUZZ)
@given(content=TEXTS)
def test_damaged_csv_ends_in_errors_of_ours_ten_thousand_times(tmp_path, content):
    check_damaged(tmp_path / 'a.csv', content)
