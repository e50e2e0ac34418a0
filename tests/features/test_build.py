"""What must change a key, and what must not; who shares features, and who does not."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from tiny_cache_run import CROP, FLIP, TinyBackbone, head_weights, make_cfg, pipeline, run

from mhc_plugin.features.build import FeaturePlan
from mhc_plugin.features.extractor import FeatureExtractor
from mhc_plugin.features.store import FeatureStore, hashing

RANDOM = pipeline(CROP, FLIP)
GAP = dict(type='GlobalAveragePooling')


class Setting:
    """A run about to begin, which a test may change in any way."""

    def __init__(self, images, tmp_path, transforms=RANDOM):
        self.images = images
        self.cfg = make_cfg(images, tmp_path / 'work', transforms=transforms, views=2)
        self.change_runner = lambda runner: None

    def key(self):
        runner = Runner.from_cfg(self.cfg)
        torch.manual_seed(0)  # the same weights under any seed of the runner
        for parameter in runner.model.backbone.parameters():
            torch.nn.init.normal_(parameter)
        self.change_runner(runner)
        loop = runner.build_train_loop(runner.cfg.train_cfg)
        return FeaturePlan.make(
            FeatureExtractor.of(runner.model, loop.cache.store, training=True),
            loop.dataloader.dataset,
            runner.seed,
            loop.cache,
            MMLogger.get_current_instance(),
        ).key


def on_runner(change):

    def apply(setting):
        setting.change_runner = change

    return apply


def set_cfg(**changes):
    return lambda setting: setting.cfg.merge_from_dict(changes)


def change_pixel(setting):
    """Change one value of one image in place; size, inode and times are kept."""
    path = setting.images / '7.bmp'
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with open(path, 'r+b') as f:
        f.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (stat.st_size, stat.st_ino)


def reorder(setting):
    edit_annotations(setting.images, lambda data: data['data_list'].reverse())


def drop_one(setting):
    edit_annotations(setting.images, lambda data: data['data_list'].pop())


def edit_annotations(images, edit):
    path = images / 'ann.json'
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


@torch.no_grad()
def next_float(runner):
    weight = runner.model.backbone.stages[0][0].weight
    weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))


def move_statistics(runner):
    runner.model.backbone.stages[0][1].running_mean += 1e-6


CHANGES = {
    'a bit of a weight': on_runner(next_float),
    'a batch statistic': on_runner(move_statistics),
    'a bit of an image, with size and times kept': change_pixel,
    'the order of the images': reorder,
    'the number of images': drop_one,
    'an argument of a transform': set_cfg(**{'train_dataloader.dataset.pipeline.3.prob': 0.4}),
    'a further transform': lambda s: s.cfg.train_dataloader.dataset.pipeline.insert(
        2, dict(type='RandomGrayscale', prob=0.5)
    ),
    'normalisation': set_cfg(**{'model.data_preprocessor.mean': [121.0, 120.0, 120.0]}),
    'order of colours': set_cfg(**{'model.data_preprocessor.to_rgb': False}),
    'stages': lambda s: (
        set_cfg(**{'model.backbone.out_indices': (0, 1), 'model.head.in_channels': (8, 12)})(s),
        set_cfg(**{'model.head.connection': 'stages', 'model.head.head_stages': [0, 1, 0, 1]})(s),
    ),
    'a pool': set_cfg(**{'model.head.pool': 'max'}),
    'sharpness of a pool': set_cfg(**{'model.head.pool': 'lse'}),
    'maps instead of vectors': set_cfg(**{'train_cfg.cache.store': 'maps'}),
    'views': set_cfg(**{'train_cfg.cache.views': 3}),
    'precision': set_cfg(**{'train_cfg.cache.precision': 'bf16'}),
    'storage': set_cfg(**{'train_cfg.cache.storage': 'fp16'}),
    'seed': set_cfg(**{'randomness.seed': 4}),
}


@pytest.fixture
def bitmaps(images):
    """The images as bitmaps, whose last byte is a pixel."""
    for path in images.glob('*.png'):
        Image.open(path).save(path.with_suffix('.bmp'))

    def rename(data):
        for info in data['data_list']:
            info['img_path'] = info['img_path'].replace('png', 'bmp')

    edit_annotations(images, rename)
    return images


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_key_changes_with(bitmaps, tmp_path, change):
    before = Setting(bitmaps, tmp_path).key()
    setting = Setting(bitmaps, tmp_path)
    change(setting)
    assert setting.key() != before


@pytest.mark.parametrize('library', ['torch', 'numpy', 'PIL', 'cv2', 'mmcv', 'mmpretrain'])
def test_key_changes_with_version_of(images, tmp_path, monkeypatch, library):
    before = Setting(images, tmp_path).key()
    monkeypatch.setattr(sys.modules[library], '__version__', '99.0')
    assert Setting(images, tmp_path).key() != before


def move_folder(setting):
    shutil.copytree(setting.images, setting.images.with_name('elsewhere'))
    shutil.rmtree(setting.images)
    setting.cfg.train_dataloader.dataset.data_root = str(setting.images.with_name('elsewhere'))


def touch(setting):
    for path in setting.images.iterdir():
        os.utime(path, (1, 1))


def run_backbone(runner):
    runner.model.train()
    runner.model(torch.rand(2, 3, 16, 16))
    runner.model.eval()
    runner.model(torch.rand(2, 3, 16, 16))
    runner.model.backbone.to(memory_format=torch.channels_last)


def change_labels(setting):
    def edit(data):
        data['data_list'][0]['gt_label'] = [3]
        data['data_list'][1]['unknown_label'] = [0]

    edit_annotations(setting.images, edit)


NO_CHANGES = {
    'nothing': lambda s: None,
    'place of the folder': move_folder,
    'times of the files': touch,
    'labels': change_labels,
    'number of workers': set_cfg(**{'train_dataloader.num_workers': 2}),
    'batch size': set_cfg(**{'train_dataloader.batch_size': 3}),
    'a forward pass': on_runner(run_backbone),
    'loss': set_cfg(**{'model.head.loss': dict(type='PerHeadBCELoss', head_reduction='mean')}),
    'learning rate': set_cfg(**{'optim_wrapper.optimizer.lr': 1.0}),
    'epochs': set_cfg(**{'train_cfg.max_epochs': 9}),
    'folder of logs': set_cfg(work_dir='/tmp/elsewhere'),
    'frozen stages': on_runner(lambda r: setattr(r.model.backbone, 'frozen_stages', 1)),
    'hidden layers': set_cfg(**{'model.head.hidden_channels': [6]}),
    'dropout': set_cfg(**{'model.head.dropout': 0.3}),
    'connection': set_cfg(**{'model.head.connection': 'channels'}),
    'the baseline': lambda s: (
        s.cfg.model.update(neck=GAP),
        s.cfg.model.update(
            head=dict(type='MultiLabelLinearClsHead', in_channels=12, num_classes=4)
        ),
    ),
    'trust': set_cfg(**{'train_cfg.cache.trust_mtime': True}),
}


@pytest.mark.parametrize('change', NO_CHANGES.values(), ids=NO_CHANGES)
def test_key_stays_with(images, tmp_path, change):
    before = Setting(images, tmp_path).key()
    setting = Setting(images, tmp_path)
    change(setting)
    assert setting.key() == before


@pytest.mark.parametrize(
    'change',
    [set_cfg(**{'randomness.seed': 4}), set_cfg(**{'train_cfg.cache.views': 3})],
    ids=['seed', 'views'],
)
def test_without_random_numbers_key_stays_with(images, tmp_path, change):
    before = Setting(images, tmp_path, pipeline()).key()
    setting = Setting(images, tmp_path, pipeline())
    change(setting)
    assert setting.key() == before


def test_key_changes_with_the_kind_of_device(images, tmp_path, monkeypatch):
    before = Setting(images, tmp_path).key()
    monkeypatch.setattr(FeatureExtractor, 'device', torch.device('cuda', 1))
    assert Setting(images, tmp_path).key() != before


def test_key_stays_with_the_number_of_the_device(images, tmp_path, monkeypatch):
    keys = set()
    for index in range(2):
        monkeypatch.setattr(FeatureExtractor, 'device', torch.device('cuda', index))
        keys.add(Setting(images, tmp_path).key())
    assert len(keys) == 1


def test_two_convolutional_heads_share_maps(images, tmp_path):
    keys = set()
    for head in ('ConvMultiHeadClsHead', 'ConvClsHead'):
        setting = Setting(images, tmp_path)
        setting.cfg.merge_from_dict({'model.head.type': head})
        keys.add(setting.key())
    assert len(keys) == 1
    assert keys != {Setting(images, tmp_path).key()}


# ---- transforms of the user


TRANSFORM = """
from mmcv.transforms import BaseTransform
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from user_shift import shift

@TRANSFORMS.register_module(force=True)
class UserShift(BaseTransform):
    def transform(self, results):
        results['img'] = shift(results['img'])
        return results
"""


def test_key_changes_with_a_function_that_a_transform_imports(images, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    keys = []
    for amount in (1, 1, 2):
        (tmp_path / 'user_shift.py').write_text(f'def shift(img):\n    return img + {amount}\n')
        (tmp_path / 'user_transforms.py').write_text(TRANSFORM)
        for name in ('user_shift', 'user_transforms'):
            sys.modules.pop(name, None)
        import linecache

        from mhc_plugin.features import versions

        linecache.clearcache()
        versions._hash_sources.cache_clear()
        __import__('user_transforms')
        keys.append(Setting(images, tmp_path, pipeline(dict(type='UserShift'))).key())
    assert keys[0] == keys[1] != keys[2]


def notebook_transform():
    """A transform as it is defined in a notebook."""
    from mmcv.transforms import BaseTransform

    @TRANSFORMS.register_module(name='FromNotebook', force=True)
    class FromNotebook(BaseTransform):
        def transform(self, results):
            results['img'] = 255 - results['img']
            return results

    FromNotebook.__module__, FromNotebook.__qualname__ = '__main__', 'FromNotebook'
    return pipeline(dict(type='FromNotebook'))


def test_transform_of_a_notebook_is_not_shared_and_it_is_said(images, tmp_path, monkeypatch):
    at_exit = []
    monkeypatch.setattr('atexit.register', lambda f, *a, **kw: at_exit.append(lambda: f(*a, **kw)))
    weights = []
    for name in ('a', 'b'):
        TinyBackbone.num_images = 0
        weights.append(
            head_weights(run(make_cfg(images, tmp_path / name, transforms=notebook_transform())))
        )
        assert TinyBackbone.num_images >= 12
        text = next((tmp_path / name).glob('*/*.log')).read_text()
        assert (
            'These features are not shared with other runs, since what they are made from '
            'cannot be described: FromNotebook is defined in a script or notebook'
        ) in text
    assert torch.equal(weights[0]['fc.weight'], weights[1]['fc.weight'])
    store = FeatureStore(tmp_path / 'cache')
    assert len(store.entries()) == 3  # one is that of validation
    for remove in at_exit:
        remove()
    assert len(store.entries()) == 1


# ---- who gets what


def test_changed_image_is_computed_anew_and_the_rest_is_found(bitmaps, tmp_path):
    run(make_cfg(bitmaps, tmp_path / 'a'))
    TinyBackbone.num_images = 0
    run(make_cfg(bitmaps, tmp_path / 'b'))
    assert TinyBackbone.num_images == 2
    change_pixel(Setting(bitmaps, tmp_path))
    TinyBackbone.num_images = 0
    run(make_cfg(bitmaps, tmp_path / 'c'))
    assert TinyBackbone.num_images == 12 + 2


def test_changed_labels_are_seen_without_computing(images, tmp_path):
    run(make_cfg(images, tmp_path / 'a'))

    def edit(data):
        for info in data['data_list']:
            info['gt_label'] = [3]

    edit_annotations(images, edit)
    TinyBackbone.num_images = 0
    runner = run(make_cfg(images, tmp_path / 'b'))
    assert TinyBackbone.num_images == 2
    samples = runner.train_dataloader.dataset.__getitems__(range(12))['data_samples']
    assert all(sample.gt_label.tolist() == [3] for sample in samples)


def test_labels_that_the_pipeline_makes_are_part_of_the_key(images, tmp_path):

    @TRANSFORMS.register_module(force=True)
    class AddLabel:
        def __call__(self, results):
            results['gt_label'] = sorted({*results['gt_label'], 3})
            return results

    AddLabel.__qualname__ = 'AddLabel'
    globals()['AddLabel'] = AddLabel
    transforms = pipeline(dict(type='AddLabel'))
    before = Setting(images, tmp_path, transforms).key()
    setting = Setting(images, tmp_path, transforms)
    change_labels(setting)
    assert setting.key() != before
    runner = run(make_cfg(images, tmp_path / 'a', transforms=transforms))
    samples = runner.train_dataloader.dataset.__getitems__(range(12))['data_samples']
    assert all(sample.gt_label[-1] == 3 for sample in samples)
    assert samples[0].gt_label.tolist() == [3]


def test_times_are_trusted_only_on_request(bitmaps, tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, 'SETTLED_AFTER_NS', -(10**18))
    monkeypatch.setattr(
        hashing, '_fingerprint', lambda stat: (stat.st_size, stat.st_mtime_ns, 0, stat.st_ino)
    )
    old = Setting(bitmaps, tmp_path).key()
    change_pixel(Setting(bitmaps, tmp_path))
    trusting = Setting(bitmaps, tmp_path)
    trusting.cfg.train_cfg.cache.trust_mtime = True
    assert trusting.key() == old
    assert Setting(bitmaps, tmp_path).key() != old


def test_dataset_without_get_data_info_is_refused(images, tmp_path):
    runner = Runner.from_cfg(make_cfg(images, tmp_path / 'a'))
    loop = runner.build_train_loop(runner.cfg.train_cfg)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(np.zeros((4, 3))))
    loop.dataloader = torch.utils.data.DataLoader(dataset)
    with pytest.raises(ValueError, match='needs a dataset with a length and `get_data_info`'):
        loop.use_features('train')
