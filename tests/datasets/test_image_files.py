"""Images found by the names that lists give them."""

import unicodedata

import pytest

from mhc_plugin.datasets.image_files import ImageFolder, can_be_read


def test_names_lead_to_files(tmp_path):
    decomposed = unicodedata.normalize('NFD', 'é')
    for name in ('a.jpg', 'b.PNG', 'sub/c.jpg', 'd.png', 'd.jpg', f'{decomposed}.jpg', 'v1.2.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = ImageFolder(str(tmp_path))
    for given, found in (
        ('a.jpg', 'a.jpg'),
        ('./a.jpg', 'a.jpg'),
        ('sub/../a.jpg', 'a.jpg'),
        ('b', 'b.PNG'),
        ('sub//c.jpg', 'sub/c.jpg'),
        ('sub\\c.jpg', 'sub/c.jpg'),
        ('sub/c', 'sub/c.jpg'),
        ('d', 'd.jpg'),
        ('v1.2', 'v1.2.jpg'),
        ('é.jpg', f'{decomposed}.jpg'),
        (str(tmp_path / 'a.jpg'), str(tmp_path / 'a.jpg')),
        ('b.png', None),
        ('c.jpg', None),
        ('none/a.jpg', None),
        ('v1', None),
    ):
        assert folder.find(given) == found, given
    assert folder.path('sub/c.jpg') == str(tmp_path / 'sub/c.jpg')


def test_a_remote_storage_is_not_looked_into():
    folder = ImageFolder('s3://bucket/images')
    assert folder.find('./a.jpg') == 'a.jpg'
    assert folder.path('a.jpg') == 's3://bucket/images/a.jpg'


@pytest.mark.parametrize(
    ('content', 'readable'), [(b'', False), (b'text', False), (None, True), ('image', True)]
)
def test_what_can_be_read(tmp_path, make_image, content, readable):
    path = tmp_path / 'a.jpg'
    if content == 'image':
        make_image(path)
    elif content is not None:
        path.write_bytes(content)
    # A file that is not there has an error of its own.
    assert can_be_read(str(path)) is readable
