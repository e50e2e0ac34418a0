"""Labels exported by annotation tools; the files are made by hand after the tools' own pages."""

import json

import pytest

from mhc_plugin.apis.prepare import convert_labels
from mhc_plugin.datasets import CSVMultiLabelDataset, JSONMultiLabelDataset
from mhc_plugin.datasets.own_images.convert import read_export


def record(image, number=1, **fields):
    """A record of JSON-MIN: the task's data, its id, the labels, and what else is known."""
    return dict(
        image=image,
        note='a.txt',
        id=number,
        **fields,
        annotator=1,
        annotation_id=number,
        created_at='2024-01-01T00:00:00Z',
        updated_at='2024-01-01T00:00:00Z',
        lead_time=1.5,
    )


LABEL_STUDIO = [
    record('/data/upload/3/1f2e-a.jpg', tags={'choices': ['dog', 'cat']}),
    record('/data/upload/3/77aa-b%20c.jpg', 2, tags='cat'),
    record('/data/upload/3/90bc-d.jpg', 3),
]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>pets</name><labels>
    <label><name>dog</name><type>tag</type></label>
    <label><name>outline</name><type>polygon</type></label>
    <label><name>cat</name><type>any</type></label>
  </labels></task></meta>
  <image id="0" name="1f2e-a.jpg" width="32" height="24">
    <tag label="dog" source="manual"></tag><tag label="cat" source="manual"></tag>
  </image>
  <image id="1" name="77aa-b c.jpg" width="32" height="24">
    <tag label="cat" source="manual"></tag>
    <box label="dog" xtl="1" ytl="1" xbr="9" ybr="9" occluded="0" z_order="0"></box>
  </image>
  <image id="2" name="90bc-d.jpg" width="32" height="24"></image>
</annotations>
"""
COCO = dict(
    info={},
    images=[
        dict(id=7, file_name='1f2e-a.jpg', width=32, height=24),
        dict(id=8, file_name='77aa-b c.jpg', width=32, height=24),
        dict(id=9, file_name='90bc-d.jpg', width=32, height=24),
    ],
    categories=[
        dict(id=0, name='pets', supercategory='none'),
        dict(id=2, name='dog', supercategory='pets'),
        dict(id=1, name='cat', supercategory='pets'),
    ],
    annotations=[
        dict(id=0, image_id=7, category_id=2, bbox=[1, 1, 2, 2]),
        dict(id=1, image_id=7, category_id=1, bbox=[1, 1, 2, 2]),
        dict(id=2, image_id=7, category_id=1, bbox=[5, 5, 2, 2]),
        dict(id=3, image_id=8, category_id=1, bbox=[1, 1, 2, 2]),
    ],
)
EXPORTS = dict(label_studio=json.dumps(LABEL_STUDIO), cvat=CVAT, coco=json.dumps(COCO))


@pytest.fixture
def export(tmp_path):
    def write(content, name='export'):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize('ending', ['json', 'csv'])
@pytest.mark.parametrize('tool', EXPORTS)
def test_exports_become_files_that_our_datasets_read(
    export, tmp_path, make_image, tool, ending, capsys
):
    names = ['1f2e-a.jpg', '77aa-b c.jpg', '90bc-d.jpg']
    for name in names:
        make_image(tmp_path / 'images' / name)
    classes = ['cat', 'dog']
    out = convert_labels(export(EXPORTS[tool]), tmp_path / f'new/labels.{ending}', classes)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == [f'labels.{ending}']
    kind = dict(json=JSONMultiLabelDataset, csv=CSVMultiLabelDataset)[ending]
    dataset = kind(str(out), classes=classes, data_prefix=str(tmp_path / 'images'))
    infos = [dataset.get_data_info(i) for i in range(3)]
    assert [info['img_path'].rsplit('/', 1)[1] for info in infos] == names
    assert [info['gt_score'].tolist() for info in infos] == [[1, 1], [1, 0], [0, 0]]
    assert '3 images, 2 classes\ncat 2, dog 1\n' in capsys.readouterr().out
    with pytest.raises(FileExistsError, match='exists already'):
        convert_labels(export(EXPORTS[tool]), out)


@pytest.mark.parametrize(
    ('tool', 'classes'),
    [('label_studio', ('cat', 'dog')), ('cvat', ('dog', 'cat')), ('coco', ('cat', 'dog'))],
)
def test_classes_are_those_of_the_export_or_some_of_them(export, tool, classes):
    path = export(EXPORTS[tool])
    assert read_export(path).classes == classes
    some = read_export(path, ['dog'])
    assert some.classes == ('dog',)
    assert [entry['gt_label'] for entry in some.entries(some.classes)] == [[0], [], []]
    with pytest.raises(ValueError, match=r"but got 'Dog' \(did you mean 'dog'\?\)"):
        read_export(path, ['Dog'])


def test_classes_on_which_annotations_of_an_image_disagree_are_unknown(export, tmp_path, capsys):
    records = [
        record('/data/upload/1/a.jpg', tags={'choices': ['cat', 'dog']}),
        record('/data/upload/1/a.jpg', 2, tags='cat'),
    ]
    out = convert_labels(export(records), tmp_path / 'a.csv')
    assert out.read_text() == 'file,labels,unknown_labels\na.jpg,cat,dog\n'
    assert '1 labels are unknown' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('/data/upload/12/0a1b-x%20y.png', '0a1b-x y.png'),
        ('/data/local-files/?d=pets/a.jpg', 'pets/a.jpg'),
        ('https://example.org/pets/a.jpg?size=1', 'a.jpg'),
        ('s3://bucket/pets/a.jpg', 'a.jpg'),
        ('pets/a.jpg', 'pets/a.jpg'),
    ],
)
def test_names_of_images_in_label_studio(export, source, name):
    assert list(read_export(export([record(source, tags='cat')])).labels) == [name]


def test_fields_of_label_studio(export):
    several = [record('a.jpg', tags=['cat', {'choices': ['dog', 'cow']}], quality='good')]
    with pytest.raises(ValueError, match=r"one field of choices, but got \['quality', 'tags'\]"):
        read_export(export(several))
    assert read_export(export(several), choices='tags').classes == ('cat', 'cow', 'dog')
    with pytest.raises(ValueError, match=r"`choices` to be a field .* but got 'tag'"):
        read_export(export(several), choices='tag')
    photo = dict(photo='pets/a.jpg', title='A dog', id=1, tags='cat')
    assert read_export(export([photo])).labels == {'pets/a.jpg': [{'cat'}]}


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('{"images": []}', "Expected Label Studio's JSON-MIN"),
        ('[{"image": "a.jpg"},\n', 'line 2: The JSON is broken'),
        ([dict(id=1, data={}, annotations=[])], 'but got its JSON; export once more as JSON-MIN'),
        ([], 'labels of images, but the file has none'),
        ([dict(id=1, tags='cat')], 'Expected an image in record 1'),
        (
            [record('s3://x/a.jpg', tags='cat'), record('s3://y/a.jpg', tags='cat')],
            "are both 'a.jpg'",
        ),
        (dict(COCO, images=COCO['images'][:1]), 'but got image 8 and category 1'),
        (dict(COCO, images=[dict(id=1)]), "fields of COCO, but 'file_name' is not there"),
        (
            dict(COCO, images=[*COCO['images'], dict(id=1, file_name='90bc-d.jpg')]),
            "each image once, but '90bc-d.jpg' is there twice",
        ),
        (
            dict(COCO, categories=[dict(id=i, name='cat') for i in (1, 2)]),
            r"each class once, but got \['cat'\]",
        ),
        ('<annotations><track/></annotations>', 'CVAT for images.*but got <annotations>'),
        (CVAT.replace('tag', 'x'), 'images with <tag>, but none has one'),
        (CVAT.replace('77aa-b c', '1f2e-a'), "a name of its own, but got '1f2e-a.jpg'"),
        (CVAT[:-20], r'line \d+: The XML is broken'),
        (CVAT.replace('<annotations>', '<!DOCTYPE a><annotations>'), 'The XML cannot be read'),
    ],
)
def test_exports_that_are_wrong_are_named(export, content, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read_export(export(content, 'my.export'))
    assert 'my.export' in str(error.value)


def test_what_cannot_be_written_is_refused(export, tmp_path):
    path = export([record('a.jpg', tags='cat|dog')])
    with pytest.raises(ValueError, match=r'got \'cat\|dog\'; write JSON'):
        convert_labels(path, tmp_path / 'a.csv')
    with pytest.raises(ValueError, match=r"`out` to be one of \('.json', '.csv'\)"):
        convert_labels(path, tmp_path / 'a.txt')
    assert [found.name for found in tmp_path.iterdir()] == ['export']
