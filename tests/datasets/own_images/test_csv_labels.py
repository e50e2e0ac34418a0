"""Labels of one's own from CSV files, as programs and people write them."""

import unicodedata

import pytest

CLASSES = ('cat', 'dog', 'horse')
TABLE = 'file,labels,unknown_labels\na.jpg,dog|cat,\nsub/b.jpg,,\nc.jpg,horse,cat\n'
COLUMNS = 'image,cat,dog,horse\na.jpg,1,1,0\nsub/b.jpg,0,0,0\nc.jpg,-1,0,1\n'
SCORES = [[1, 1, 0], [0, 0, 0], [-1, 0, 1]]


def scores(dataset):
    return [dataset.get_data_info(i)['gt_score'].tolist() for i in range(len(dataset))]


@pytest.mark.parametrize(
    'text',
    [
        TABLE.replace('\n', '\r\n'),
        TABLE.replace('\n', '\r'),
        '\ufeff' + TABLE,
        TABLE.encode('utf-16'),
        TABLE.replace('dog|cat', ' dog | cat |'),
        'note,labels,file,unknown_labels\n,cat|dog,a.jpg,\n"x,y",,sub/b.jpg,\n,horse,c.jpg,cat\n',
        'file,labels,unknown_labels\n"a.jpg","dog|cat",\n\nsub/b.jpg,,\nc.jpg,horse,cat',
        TABLE.replace(',', ';'),
        TABLE.replace(',', '\t'),
        TABLE.replace('\n', ',,\n'),
        TABLE + ',,\n,,\n',
        'File, Labels, Unknown_Labels\na.jpg, dog|cat,\nsub/b.jpg,,\nc.jpg, horse, cat\n',
        TABLE.replace('unknown_labels', 'unknown_label'),
        TABLE.replace('file', 'image'),
        TABLE.replace('a.jpg', './a.jpg').replace('sub/b', 'sub//b'),
        TABLE.replace('sub/b', 'sub\\b'),
    ],
)
def test_lists_of_labels_as_programs_write_them(from_csv, text):
    assert scores(from_csv(text)) == SCORES


@pytest.mark.parametrize(
    'text',
    [
        COLUMNS,
        '\ufeff' + COLUMNS.replace('\n', '\r\n'),
        COLUMNS.encode('utf-16'),
        COLUMNS.replace('-1', ''),
        COLUMNS.replace('1', '1.0').replace('0', '0.0').replace('.0.0', '.0'),
        COLUMNS.replace(',', ';'),
        COLUMNS.replace(',', '\t'),
        COLUMNS.replace('image,', 'filename, ').replace(',c', ', c').replace(',h', ', h'),
        # Of pandas, with its index.
        ''.join(f'{i - 1 if i else ""},{x}\n' for i, x in enumerate(COLUMNS.splitlines())),
        COLUMNS.replace('.jpg', ''),
        COLUMNS.replace(',', ';').replace('dog', '"dog"'),
        'first,cat,dog,horse\na.jpg,1,1,0\nsub/b.jpg,0,0,0\nc.jpg,-1,0,1\n',
        'id,cat,path,dog,horse\n7,1,a.jpg,1,0\n8,0,sub/b.jpg,0,0\n9,,c.jpg,0,1\n',
        'horse,image,dog,note,cat\n0,a.jpg,1,x,1\n0,sub/b.jpg,0,,0\n1,c.jpg,0,,-1\n',
    ],
)
def test_a_column_for_each_class(from_csv, text):
    assert scores(from_csv(text)) == SCORES


def test_columns_are_the_classes_where_none_are_given(from_csv):
    dataset = from_csv(COLUMNS, classes=None)
    assert dataset.metainfo['classes'] == CLASSES
    assert scores(dataset) == SCORES
    fewer = from_csv(COLUMNS, classes=['horse', 'cat'])
    assert fewer.metainfo['classes'] == ('horse', 'cat')
    assert scores(fewer) == [[0, 1], [0, 0], [1, -1]]
    assert scores(from_csv(COLUMNS, classes=['dog'])) == [[1], [0], [0]]


def test_columns_that_are_not_read_are_named_once(from_csv, warnings):
    from_csv('file,labels,notes,\na.jpg,cat,x,\nc.jpg,dog,y,\n')
    assert len(warnings) == 1
    assert warnings[0].endswith("own.csv: columns that are not read: ['notes', '(no name)'].")


def test_predictions_may_be_read_as_labels(from_csv):
    assert scores(from_csv('file,labels,error,cat,dog,horse\na.jpg,cat,,0.9,0.2,0.1\n')) == [
        [1, 0, 0]
    ]


def test_columns_of_classes_come_before_a_list_that_is_none(from_csv, warnings):
    text = 'file,labels,cat,dog,horse\na.jpg,"[\'cat\']",1,0,0\nc.jpg,"[\'dog\']",0,1,\n'
    assert scores(from_csv(text)) == [[1, 0, 0], [0, 1, -1]]
    assert "not read: ['labels']" in warnings[0]
    agreeing = 'file,labels,cat,dog,horse\na.jpg,cat|dog,1,1,0\nc.jpg,dog,0,,\n'
    assert scores(from_csv(agreeing)) == [[1, 1, 0], [0, -1, -1]]


def test_images_that_are_not_there_are_named_once_and_left_out(from_csv, warnings):
    text = TABLE + 'gone.jpg,cat,\nsub/lost.jpg,,\n'
    assert scores(from_csv(text)) == SCORES
    assert len(warnings) == 1
    assert '2 of 5 images are not in' in warnings[0]
    assert "['gone.jpg', 'sub/lost.jpg']" in warnings[0]
    with pytest.raises(ValueError, match=r"own\.csv, line 5: Expected image 'gone.jpg' to be in"):
        from_csv(text, missing_images='error')
    with pytest.raises(ValueError, match=r"`missing_images` to be one of .*, but got 'ignore'"):
        from_csv(text, missing_images='ignore')
    with pytest.raises(ValueError, match=r'none of the 3 that the file lists is there, such as'):
        from_csv(data_prefix='elsewhere')


def test_names_in_either_form_of_unicode(from_csv, images):
    composed, decomposed = (unicodedata.normalize(form, 'é') for form in ('NFC', 'NFD'))
    images(f'{decomposed}1.jpg', f'{composed}2.jpg')
    text = f'file,labels\n{composed}1.jpg,{decomposed}\n{decomposed}2.jpg,{composed}\n'
    for classes in ((composed,), (decomposed,)):
        dataset = from_csv(text, classes)
        assert scores(dataset) == [[1], [1]]
        assert dataset.get_data_info(0)['img_path'].endswith(f'{decomposed}1.jpg')


def test_another_separator_and_no_unknown_labels(from_csv):
    text = 'file,labels\na.jpg,sea horse; cat'
    dataset = from_csv(text, ('cat', 'sea horse'), label_separator=';')
    assert dataset.get_data_info(0)['gt_label'] == [0, 1]


def test_the_file_of_classes_may_come_from_any_system(from_csv, tmp_path):
    for content in ('cat\ndog\nhorse', '\ufeffcat\r\ndog\r\n\r\nhorse\r\n', 'cat\rdog\rhorse\r'):
        (tmp_path / 'names.txt').write_bytes(content.encode())
        assert from_csv(classes=str(tmp_path / 'names.txt')).metainfo['classes'] == CLASSES


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('', r'Expected the columns `file` and `labels`, or one of files .*but got \[\]'),
        ('file,labels\n', 'the file lists none'),
        ('file,labels\na.jpg,cow\n', r"line 2: .*\['cat', 'dog', 'horse'\].*but got 'cow'"),
        ('file,labels\na.jpg,Dog\n', r"line 2: .*but got 'Dog' \(did you mean 'dog'\?\)"),
        ('file,labels\na.jpg,cat;dog\n', r"but got 'cat;dog'"),
        ('file,labels\na.jpg,cat\nc.jpg\n', 'line 3: Expected 2 fields'),
        ('file,labels\na.jpg,cat,dog\n', 'line 2: Expected 2 fields, .* but got 3'),
        ('file,labels\na.jpg,cat\na.jpg,dog\n', "line 3: .*'a.jpg' stands in line 2, too"),
        ('file,labels\na.jpg,cat\n./a.jpg,dog\n', "line 3: .*'./a.jpg' stands in line 2, too"),
        ('file,labels\nx.jpg,cat\nx.jpg,dog\n', "line 3: .*'x.jpg' stands in line 2, too"),
        ('file,labels\na.jpg,cat\n,dog\n', 'line 3: Expected the name of an image, but got none'),
        ('file,labels,labels\na.jpg,cat,dog\n', r"line 1: .*\['labels', 'labels'\]"),
        ('file,labels,unknown_labels\na.jpg,cat,cat\n', r"line 2: .*\['cat'\] is both"),
        ('file,labels,unknown_lables\na.jpg,cat,dog\n', 'did you mean `unknown_labels`'),
        ('file,labels,unknown\na.jpg,cat,dog\n', 'did you mean `unknown_labels`'),
        ('file,label\na.jpg,cat\n', "line 1: .* but got 'label': did you mean `labels`"),
        ('file,labels,dog\na.jpg,cat,1\n', 'line 2: .*`labels` and `dog` to say the same'),
        ('file,labels,dog\na.jpg,dog,0\n', "line 2: .*but got 'dog' and '0'"),
        ('file,labels,cat,dog,horse\na.jpg,cat,0,1,0\n', r"line 2: .*got 'cat' and \['dog'\]"),
        ('image,cat,dog\na.jpg,1,0\n', r"line 1: .*names 'horse' not"),
        ('image,cat,Dog,horse\na.jpg,1,0,0\n', r"'dog' not \(did you mean 'Dog'\?\)"),
        ('image,cat,dog,horse,dog\na.jpg,1,0,0,0\n', "line 1: .*names 'dog' more than once"),
        ('image,cat,dog,horse\na.jpg,1,0,2\n', "line 2: .*column 'horse', but got '2'"),
        ('image,cat,dog,horse\n,1,0,1\n', 'line 2: Expected the name of an image'),
        (b'file,labels\na.jpg,cat\n\xe9.jpg,cat\n', r"line 3: .* UTF-8, .*b'\\xe9.jp'"),
        ('file,labels\na.jpg,cat\n'.encode('utf-16-le'), 'line 1: .*got zero bytes'),
        (f'file,labels\n{"x" * 200000},cat\n', 'Reading the CSV failed: field larger than'),
    ],
)
def test_files_that_are_wrong_are_refused_with_file_and_line(from_csv, text, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        from_csv(text)
    assert 'own.csv' in str(error.value)


def test_a_column_that_is_no_class_is_named(from_csv):
    with pytest.raises(ValueError, match=r"line 2: .*'split', but got 'train'; `classes` names"):
        from_csv('image,cat,split\na.jpg,1,train\n', classes=None)
    with pytest.raises(ValueError, match=r"line 1: .*each class once, but got \['cat'\]"):
        from_csv('image,cat,cat\na.jpg,1,0\n', classes=None)
    with pytest.raises(ValueError, match='`classes` to name the classes of'):
        from_csv(classes=None)


def test_separators_that_cannot_be(from_csv):
    with pytest.raises(ValueError, match="`label_separator` to be a text, but got ''"):
        from_csv(label_separator='')
    with pytest.raises(ValueError, match=r"to be in no name .*'\|', which is in 'a\|b'"):
        from_csv('file,labels\na.jpg,cat\n', classes=['cat', 'a|b'])
