import warnings
from pathlib import Path

import pytest

from mhc_plugin import compat
from mhc_plugin.apis import load_config

NAME = 'seresnet50_multifc_combined0'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text('train_cfg = dict(max_epochs=3)\nclasses = [1]')
    return path


@pytest.mark.parametrize(
    'name',
    [
        f'mhc_plugin::mhc/{NAME}.py',
        f'mhc_plugin::mhc/{NAME}',
        NAME,
        f'{NAME}.py',
        compat.config_root() / 'configs' / 'mhc' / f'{NAME}.py',
    ],
)
def test_config_of_this_package(name):
    cfg = load_config(name)
    assert Path(cfg.filename).name == f'{NAME}.py'
    assert cfg.model.head.type == 'MultiHeadClsHead'


def test_config_of_mmpretrain():
    assert load_config('mmpretrain::resnet/resnet50_8xb32_in1k.py').model.backbone.depth == 50


def test_options_override(config):
    cfg = load_config(config, {'train_cfg.max_epochs': 5, 'work_dir': 'a'})
    assert (cfg.train_cfg.max_epochs, cfg.work_dir) == (5, 'a')


@pytest.mark.parametrize(
    ('missing', 'near'),
    [
        ('tini.py', 'tiny.py'),
        ('seresnet50_multfc_combined0', rf'{NAME}\b(?!\.py)'),
        ('mhc_plugin::mhc/seresnet50_multfc_combined0', f'{NAME}.py'),
    ],
)
def test_missing_config_names_the_closest(config, missing, near, monkeypatch):
    monkeypatch.chdir(config.parent)
    with pytest.raises(FileNotFoundError, match=f'There is no config {missing}.* mean .*{near}'):
        load_config(missing)


def test_missing_config_that_nothing_is_close_to(config):
    with pytest.raises(FileNotFoundError, match='The configs of this package are in'):
        load_config(config.parent / 'zzzzzzz.py')


@pytest.mark.parametrize(
    ('option', 'meant'),
    [('trian_cfg.a', 'train_cfg'), ('resumed', 'resume'), ('val_cfgs', 'val_cfg')],
)
def test_option_that_looks_like_another_is_warned_of_and_set(config, option, meant):
    with pytest.warns(UserWarning, match=rf'option `{option}`; did you mean `{meant}`\?'):
        cfg = load_config(config, {option: 1})
    assert cfg.get(option.split('.')[0]) in (1, dict(a=1))


def test_variables_of_the_author_are_no_mistakes(config):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_config(config, {'classes': [2], 'find_unused_parameters': True})


def test_misspelt_key_of_the_config(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('train_dataloder = dict()')
    with pytest.warns(UserWarning, match='`train_dataloder`.*did you mean `train_dataloader`'):
        load_config(path)
