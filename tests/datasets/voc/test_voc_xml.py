import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets import AnnotationError
from mhc_plugin.datasets.voc.xml_files import MAX_BYTES, MAX_DEPTH, parse_voc_xml, read_voc_xml

VALID = b"""<annotation>
  <folder>VOC2012</folder>
  <size><width>32</width><height>24</height></size>
  <object>
    <name>dog</name>
    <difficult>1</difficult>
    <bndbox><xmin>3</xmin><ymin>5</ymin><xmax>20</xmax><ymax>11.5</ymax></bndbox>
    <part><name>head</name>
      <bndbox><xmin>4</xmin><ymin>6</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></part>
  </object>
  <object><bndbox><ymax>4</ymax><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax></bndbox>
    <name> cat </name></object>
  <object><name>sofa</name></object>
</annotation>
"""


def test_objects_have_name_difficult_and_box_with_pixels_counted_from_zero():
    dog, cat, sofa = parse_voc_xml(VALID).objects
    assert dog == ('dog', True, (2.0, 4.0, 20.0, 11.5), 4)
    assert cat == ('cat', False, (0.0, 0.0, 2.0, 4.0), 11)
    assert sofa == ('sofa', False, None, 13)


def test_the_size_is_that_of_the_image_that_was_annotated():
    assert parse_voc_xml(VALID).size == (32, 24)
    for old, new in ((b'<width>32</width>', b''), (b'<width>32', b'<width>0'), (b'<size>', b'<x>')):
        content = VALID.replace(old, new).replace(
            b'</size>', b'</x>' if new == b'<x>' else b'</size>'
        )
        assert parse_voc_xml(content).size is None
    with pytest.raises(AnnotationError, match=r'line 3: Expected <height> to be a number of'):
        parse_voc_xml(VALID.replace(b'<height>24', b'<height>tall'))


def test_name_of_the_root_does_not_matter():
    assert parse_voc_xml(b'<x><object><name>cat</name></object></x>').objects[0].name == 'cat'
    # Objects are children of the root, and nothing else is.
    assert parse_voc_xml(b'<x><y><object><name>cat</name></object></y></x>').objects == []


def test_file_is_read_and_named_in_errors(tmp_path):
    path = tmp_path / 'a.xml'
    path.write_bytes(VALID)
    assert len(read_voc_xml(path).objects) == 3
    path.write_bytes(VALID[:-5])
    with pytest.raises(AnnotationError, match=r'a\.xml, line 14: The XML is broken'):
        read_voc_xml(path)
    with pytest.raises(FileNotFoundError):
        read_voc_xml(tmp_path / 'b.xml')


@pytest.mark.parametrize(
    ('old', 'new', 'line', 'message'),
    [
        (b'<name>dog</name>', b'', 4, 'Expected every <object> to have a <name>'),
        (b'<name>dog</name>', b'<name> </name>', 4, 'Expected every <object> to have a <name>'),
        (b'<difficult>1', b'<difficult>yes', 6, "<difficult> to be 0 or 1, but got 'yes'"),
        (b'<xmax>20', b'<xmax>wide', 7, "<xmax> to be a number of pixels, but got 'wide'"),
        (b'<xmax>20', b'<xmax>nan', 7, "<xmax> to be a number of pixels, but got 'nan'"),
        (b'<xmax>20', b'<xmax>1e9', 7, "<xmax> to be a number of pixels, but got '1e9'"),
        (b'<xmax>20</xmax>', b'', 4, 'xmax is missing'),
        (b'<xmax>20', b'<xmax>2', 4, 'xmin <= xmax and ymin <= ymax, but got 3, 5, 2, 11.5'),
        (b'dog', b'd' * 2000, 5, '<name> holds more than 1024 characters'),
        (b'<folder>', b'<folder', 2, 'The XML is broken'),
        (b'VOC2012', b'&nbsp;', 2, 'The XML is broken: undefined entity'),
        (b'VOC2012', b'\xff', 2, 'The XML is broken: not well-formed'),
    ],
)
def test_damage_is_reported_with_its_line(old, new, line, message):
    with pytest.raises(AnnotationError, match=message.replace('(', r'\(')) as caught:
        parse_voc_xml(VALID.replace(old, new, 1), 'a.xml')
    assert caught.value.line == line
    assert str(caught.value).startswith(f'a.xml, line {line}: ')


BOMBS = dict(
    billion_laughs=b'<!DOCTYPE a [<!ENTITY l0 "ha">'
    + b''.join(b'<!ENTITY l%d "%s">' % (i, b'&l%d;' % (i - 1) * 10) for i in range(1, 10))
    + b']><a><object><name>&l9;</name></object></a>',
    quadratic_blowup=b'<!DOCTYPE a [<!ENTITY l "'
    + b'x' * 50000
    + b'">]><a>'
    + b'&l;' * 50000
    + b'</a>',
    external_entity=b'<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    b'<a><object><name>&f;</name></object></a>',
    external_dtd=b'<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><a/>',
    parameter_entity=b'<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><a/>',
    plain_dtd=b'<!DOCTYPE annotation><annotation/>',
)


@pytest.mark.parametrize('bomb', BOMBS.values(), ids=list(BOMBS))
def test_entities_and_dtds_are_refused(bomb):
    with pytest.raises(AnnotationError, match='Expected XML without a DTD and without entities'):
        parse_voc_xml(bomb)


def test_depth_and_size_are_bounded():
    deep = b'<a>' * MAX_DEPTH + b'</a>' * MAX_DEPTH
    assert parse_voc_xml(deep).objects == []
    with pytest.raises(AnnotationError, match=f'nested deeper than {MAX_DEPTH}'):
        parse_voc_xml(b'<a>' + deep + b'</a>')
    with pytest.raises(AnnotationError, match=f'larger than {MAX_BYTES} bytes'):
        parse_voc_xml(b' ' * (MAX_BYTES + 1))


@pytest.mark.parametrize('encoding', ['no-such', 'shift_jis', 'rot13', 'utf-7', 'idna'])
def test_encodings_that_expat_cannot_read_are_errors_of_ours(encoding):
    content = f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode()
    with pytest.raises(AnnotationError):
        parse_voc_xml(content)


def test_other_encodings_are_read():
    text = '<?xml version="1.0" encoding="{}"?><a><object><name>café</name></object></a>'
    for encoding in ('utf-8', 'utf-16', 'iso-8859-1', 'windows-1252'):
        assert parse_voc_xml(text.format(encoding).encode(encoding)).objects[0].name == 'café'


# Pieces of which damaged annotations are made: whole tags, so that many get far.
PIECES = st.sampled_from(
    [
        b'<annotation>',
        b'</annotation>',
        b'<object>',
        b'</object>',
        b'<name>',
        b'</name>',
        b'dog',
        b'<difficult>',
        b'</difficult>',
        b'<bndbox>',
        b'</bndbox>',
        b'<xmin>',
        b'</xmin>',
        b'<xmax>1',
        b'</xmax>',
        b'<ymin>',
        b'</ymin>',
        b'<ymax>',
        b'</ymax>',
        b'1',
        b'-3',
        b'1e400',
        b'nan',
        b' ',
        b'\n',
        b'&lt;',
        b'&x;',
        b'&#0;',
        b'<![CDATA[',
        b']]>',
        b'<!--',
        b'-->',
        b'<?xml version="1.0"?>',
        b'<!DOCTYPE a>',
        b'<!ENTITY a "b">',
        b'\x00',
        b'\xff',
        b'\xef\xbb\xbf',
        b'<a b="c">',
        b'<a:b/>',
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.integers(0, 40), PIECES), max_size=6)
DOCUMENTS = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=40).map(b''.join),
    EDITS.map(lambda edits: _edited(VALID, edits)),
)


def _edited(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, piece in edits:
        content = content[:place] + piece + content[place + length :]
    return content


def check_damaged(content: bytes) -> None:
    try:
        objects = parse_voc_xml(content, 'a.xml').objects
    except AnnotationError:
        return
    for found in objects:
        assert found.name
        assert found.box is None or all(abs(corner) <= 2**24 for corner in found.box)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS)
def test_damaged_xml_ends_in_errors_of_ours(content):
    check_damaged(content)


@pytest.mark.fuzz
@settings(max_examples=10_000, deadline=None)
@given(DOCUMENTS)
def test_damaged_xml_ends_in_errors_of_ours_ten_thousand_times(content):
    check_damaged(content)
