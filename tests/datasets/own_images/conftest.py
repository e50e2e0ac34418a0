"""Both formats, with the images that they name."""

import json

import pytest
from mmpretrain.registry import DATASETS

import mhc_plugin.datasets  # noqa: F401  (registers them)

CLASSES = ('cat', 'dog', 'horse')
SAMPLES = [
    dict(img_path='a.jpg', gt_label=[0, 1]),
    dict(img_path='sub/b.jpg', gt_label=[]),
    dict(img_path='c.jpg', gt_label=[2], unknown_label=[0]),
]
TABLE = 'file,labels,unknown_labels\na.jpg,dog|cat,\nsub/b.jpg,,\nc.jpg,horse,cat\n'


@pytest.fixture
def images(tmp_path, make_image):
    """The folder of the images, with more of them as wanted."""

    def make(*names):
        for name in names:
            make_image(tmp_path / 'images' / name)
        return tmp_path / 'images'

    make('a.jpg', 'sub/b.jpg', 'c.jpg')
    return make


@pytest.fixture
def build(tmp_path, images):
    def build(kind, file, content, **kwargs):
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / file).write_bytes(content)
        kwargs = dict(dict(data_root=str(tmp_path), data_prefix='images'), **kwargs)
        return DATASETS.build(dict(type=kind, ann_file=file, **kwargs))

    return build


@pytest.fixture
def from_json(build):
    def from_json(data_list=SAMPLES, metainfo=None, **kwargs):
        metainfo = dict(classes=CLASSES) if metainfo is None else metainfo
        content = json.dumps(dict(metainfo=metainfo, data_list=data_list))
        return build('JSONMultiLabelDataset', 'own.json', content, **kwargs)

    return from_json


@pytest.fixture
def from_csv(build):
    def from_csv(content=TABLE, classes=CLASSES, **kwargs):
        return build('CSVMultiLabelDataset', 'own.csv', content, classes=classes, **kwargs)

    return from_csv


@pytest.fixture(params=['json', 'csv'])
def dataset(request):
    return request.getfixturevalue(f'from_{request.param}')()


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that datasets log."""
    from mmengine.logging import MMLogger

    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', lambda line, *args: lines.append(line))
    return lines
