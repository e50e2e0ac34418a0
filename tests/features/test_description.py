"""Descriptions: what must change a key, what must not, and what cannot be described."""

import enum
import functools
import importlib
import io
import json
import linecache
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mhc_plugin.features import versions
from mhc_plugin.features.description import describe
from mhc_plugin.features.store import FileHashes, make_key
from mhc_plugin.features.versions import UndescribableError, code_version, library_version


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Crop:
    """A transform as users write them."""

    def __init__(self, size, **state):
        self.size = size
        vars(self).update(state)


class Slotted:
    """An object without a dict."""

    __slots__ = ('size',)

    def __init__(self, size):
        self.size = size


class Named(list):
    """A list that holds more than items."""

    def __init__(self, items, name):
        super().__init__(items)
        self.name = name


class Shifted(nn.Sequential):
    """A subclass."""


def double(module, args, output=None):
    return None if output is None else 2 * output


def with_hook(module, register, hook):
    getattr(module, register)(hook)
    return module


class Images:
    """A dataset as MMEngine has them."""

    def __init__(self, infos, pipeline=()):
        self.infos = infos
        self.pipeline = list(pipeline)

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return dict(self.infos[index], sample_idx=index)


def key_of(value):
    description = describe(value, FileHashes())
    json.dumps(description)
    return make_key(dict(value=description))


DIFFERENT = dict(
    none=None,
    true=True,
    zero=0,
    one=1,
    float=0.5,
    nan=float('nan'),
    text='a',
    bytes=b'a',
    empty=[],
    nested=[[1], 2],
    flat=[1, 2],
    mapping=dict(a=1),
    other_value=dict(a=2),
    other_name=dict(b=1),
    int_keys={1: 2},
    other_int_keys={1: 3},
    set={1, 2},
    slice=slice(1, 2),
    red=Colour.RED,
    blue=Colour.BLUE,
    array=np.arange(3),
    float_array=np.arange(3.0),
    tensor=torch.arange(3),
    dtype=np.dtype('f4'),
    torch_dtype=torch.float16,
    pattern=re.compile('a'),
    flags=re.compile('a', re.IGNORECASE),
    function=np.sum,
    other_function=np.prod,
    builtin=len,
    type=dict,
    partial=functools.partial(np.sum, axis=0),
    other_partial=functools.partial(np.sum, axis=1),
    method=Images([]).__len__,
    crop=Crop(1),
    larger_crop=Crop(2),
    private=Crop(1, _p=1),
    linear=nn.Linear(2, 2),
)


def test_different_values_have_different_keys():
    keys = {name: key_of(value) for name, value in DIFFERENT.items()}
    assert len(set(keys.values())) == len(DIFFERENT)


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ((1, 2), [1, 2]),
        (dict(a=1, b=2), dict(b=2, a=1)),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        ({'x', 'y', 'z'}, {'z', 'y', 'x'}),
        (np.int64(3), 3),
        (np.float64(0.25), 0.25),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (Crop((1, 2)), Crop([1, 2], _cache=dict(draw=0.3), _cache_enabled=True)),
    ],
)
def test_equal_values_have_equal_keys(one, other):
    assert key_of(one) == key_of(other)


def test_files_are_described_by_content_wherever_they_are(tmp_path):
    for folder in ('one', 'other'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'file').write_bytes(b'content')
    one, other = tmp_path / 'one' / 'file', tmp_path / 'other' / 'file'
    assert key_of(one) == key_of(str(other)) == key_of(dict(x=one)['x'])
    assert key_of(dict(mask_path=str(one))) == key_of(dict(mask_path=str(other)))
    before = key_of(Crop(str(one)))
    assert before == key_of(Crop(str(other)))
    one.write_bytes(b'changed')
    assert before != key_of(Crop(str(one)))


def local_class():

    class Local:
        pass

    return Local()


def holds_itself():
    value = []
    value.append(value)
    return value


script_class = type('Script', (), dict(__module__='__main__'))


@pytest.mark.parametrize(
    ('value', 'reason'),
    [
        (script_class(), 'Script is defined in a script or notebook, not in a module'),
        (local_class(), 'Local cannot be imported by this name'),
        (lambda: 0, '<lambda> cannot be imported by this name'),
        (np.random.RandomState(0), 'an object of RandomState does not show its state'),
        (holds_itself(), 'an object of list holds itself'),
        (Path('/nowhere/at/all'), '/nowhere/at/all is no file'),
        ('/', '/ is no file, whose content could be compared'),
        (dict(img_path='s3://bucket/a.jpg'), 's3://bucket/a.jpg is no file on this machine'),
        (dict(tiles=[dict(img_path='gone.jpg')]), 'gone.jpg is no file on this machine'),
        (functools.partial(lambda: 0), '<lambda> cannot be imported'),
        (np.array([{}], dtype=object), 'an array of object holds more than numbers'),
    ],
)
def test_what_cannot_be_described_says_why(value, reason):
    with pytest.raises(UndescribableError, match=re.escape(reason)):
        describe(value, FileHashes())


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write modules of a user and import them anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f'{name}.py').write_text(source)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        versions._hash_sources.cache_clear()
        linecache.clearcache()
        return importlib.import_module(next(iter(sources)))

    yield write
    for name in ('user_transform', 'user_helper'):
        sys.modules.pop(name, None)


USER_TRANSFORM = (
    'import numpy as np\nfrom user_helper import scale\n'
    'class Scale:\n    def __call__(self, x):\n        return scale(x)\n'
)


def test_own_code_is_described_by_its_source_and_by_what_it_imports(write_module):
    sources = dict(user_transform=USER_TRANSFORM, user_helper='def scale(x):\n    return 2 * x\n')
    before = key_of(write_module(**sources).Scale())
    assert key_of(write_module(**sources).Scale()) == before
    changed_helper = dict(sources, user_helper='def scale(x):\n    return 3 * x\n')
    assert key_of(write_module(**changed_helper).Scale()) != before
    changed_class = dict(sources, user_transform=USER_TRANSFORM.replace('scale(x)', 'scale(-x)'))
    assert key_of(write_module(**changed_class).Scale()) != before


def test_library_code_is_described_by_its_version(monkeypatch):
    assert library_version('torch') == dict(library='torch', version=torch.__version__)
    assert library_version('functools') == dict(library='functools', version='')
    before = key_of(nn.ReLU())
    assert code_version(nn.ReLU) == library_version('torch')
    monkeypatch.setattr(torch, '__version__', '99.0')
    assert key_of(nn.ReLU()) != before


# ---- modules


def backbone(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = dict(kernel_size=3, padding=1) | changes
        return nn.Sequential(nn.Conv2d(3, 4, **arguments), nn.BatchNorm2d(4), nn.ReLU())


def module_key(module):
    return make_key(describe(module, FileHashes()))


def with_attributes(module, **attributes):
    vars(module).update(attributes)
    return module


def with_running_mean(module):
    module[1].running_mean += 1e-6
    return module


@pytest.mark.parametrize(
    'change',
    [
        lambda m: m.eval(),
        lambda m: m.requires_grad_(False),
        lambda m: m.to(memory_format=torch.channels_last),
        lambda m: (m.eval(), m(torch.rand(1, 3, 8, 8)), m)[-1],
        lambda m: with_attributes(m, init_cfg=dict(checkpoint='/some/where.pth'), frozen_stages=3),
    ],
    ids=['mode', 'gradient', 'memory format', 'forward pass', 'training'],
)
def test_module_key_stays(change):
    assert module_key(change(backbone())) == module_key(backbone())


@pytest.mark.parametrize(
    'change',
    [
        lambda: backbone(stride=2),
        lambda: backbone(padding=0),
        lambda: backbone(padding_mode='reflect'),
        lambda: backbone().half(),
        lambda: with_running_mean(backbone()),
        lambda: nn.Sequential(*backbone()[:2], nn.ReLU6()),
        lambda: nn.Sequential(*backbone()[:2], nn.ReLU(), nn.Identity()),
        lambda: with_attributes(backbone(), out_indices=(1,)),
        lambda: with_attributes(backbone(), _scale=2.0),
        lambda: with_attributes(backbone(), _offset=torch.zeros(2)),
        lambda: with_attributes(backbone(), _offset=torch.ones(2)),
        lambda: with_attributes(backbone(), _offset=np.ones(2)),
        lambda: with_attributes(backbone(), _parts=[dict(offset=torch.ones(2))]),
        lambda: with_attributes(backbone(), _crop=Crop(1)),
        lambda: with_attributes(backbone(), _crop=Crop(torch.ones(2))),
        lambda: with_attributes(backbone(), _crop=Slotted(1)),
        lambda: with_attributes(backbone(), _crop=Slotted(2)),
        lambda: with_attributes(backbone(), _crop=Named([1], name='a')),
        lambda: with_attributes(backbone(), _crop=Named([1], name='b')),
        lambda: with_attributes(backbone(), _layer=nn.Linear(1, 1)),
        lambda: with_attributes(backbone(), _scale=np.float32(0.5)),
        lambda: with_attributes(backbone(), forward=double),
        lambda: with_hook(backbone(), 'register_forward_hook', double),
        lambda: with_hook(backbone(), 'register_forward_pre_hook', double),
        lambda: with_hook(backbone()[1], 'register_forward_hook', double),
        lambda: (lambda m: nn.Sequential(*m, m[2]))(backbone()),
        lambda: Shifted(*backbone()),
    ],
    ids=[
        'stride',
        'padding',
        'padding mode',
        'dtype',
        'statistics',
        'class',
        'layer',
        'attribute',
        'private number',
        'private tensor',
        'other private tensor',
        'private array',
        'tensor in containers',
        'private object',
        'tensor of a private object',
        'object with slots',
        'other slot',
        'list with attributes',
        'other attribute',
        'layer that is not registered',
        'private scalar',
        'forward',
        'hook',
        'hook before',
        'hook of a layer',
        'a layer run twice',
        'subclass',
    ],
)
def test_module_key_changes(change, request):
    # Each from the original and from every other.
    key = module_key(change())
    assert key != module_key(backbone())
    assert SEEN.setdefault(key, request.node.name) == request.node.name


SEEN = {}
CLOSED = io.BytesIO(b'state of its own')


@pytest.mark.parametrize(
    'value',
    [
        object(),
        torch.Generator(),
        np.random.default_rng(0),
        random.Random(0),
        iter([1]),
        CLOSED,
        np.ma.masked_array([1.0, 2.0], [0, 1]),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device='meta'),
        type('Tagged', (torch.Tensor,), {})(),
        [object()],
        dict(a=[object()]),
        Crop(object()),
        lambda x: x,
        functools.partial(lambda x: x),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize('name', ['offset', '_offset'])
def test_what_a_module_holds_is_described_or_makes_it_undescribable(value, name):
    with pytest.raises(UndescribableError):
        module_key(with_attributes(backbone(), **{name: value}))
    with pytest.raises(UndescribableError):
        key_of(Crop(1, **{name: value}))


def test_hook_that_cannot_be_described():
    with pytest.raises(UndescribableError, match='<lambda>'):
        module_key(with_hook(backbone(), 'register_forward_hook', lambda *args: None))


def test_weights_count_bit_by_bit():
    module = backbone()
    with torch.no_grad():
        weight = module[0].weight
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    assert module_key(module) != module_key(backbone())
