import errno
import sys
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mhc_plugin.utils.missing import explain_downloads, explain_full_disk, needs_extra


class TestNeedsExtra:
    def test_a_package_that_is_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'gradio', None)
        with pytest.raises(ModuleNotFoundError) as caught, needs_extra('page', 'The page'):
            import gradio  # noqa: F401
        assert str(caught.value) == 'The page needs gradio: pip install "mhc_plugin[page]".'

    @pytest.mark.parametrize(
        'statement', ['from json import no_such_name', 'import json.no_such_module']
    )
    def test_a_package_whose_parts_have_moved_is_let_through(self, statement):
        with pytest.raises(ImportError, match='no_such') as caught, needs_extra('page', 'The page'):
            exec(statement)
        assert 'pip install' not in str(caught.value)


class TestExplainDownloads:
    @pytest.fixture
    def cfg(self):
        init_cfg = dict(type='Pretrained', checkpoint='https://example.org/a.pth')
        return Config(dict(model=dict(backbone=dict(init_cfg=init_cfg))))

    def test_weights_of_the_backbone(self, cfg):
        with pytest.raises(
            ConnectionError,
            match=r'download https://example.org/a.pth \(.*no route'
            r'.*--backbone-weights PATH.*--backbone-weights none',
        ):
            with explain_downloads(cfg):
                raise urllib.error.URLError('no route')

    def test_cause_of_another_error(self, cfg):
        error = RuntimeError('building failed')
        error.__cause__ = urllib.error.URLError('no route')
        with pytest.raises(ConnectionError, match='no route'), explain_downloads(cfg):
            raise error

    def test_timms_model(self):
        backbone = dict(type='TIMMBackbone', model_name='resnet18', pretrained=True)
        with pytest.raises(ConnectionError, match='the weights of resnet18'):
            with explain_downloads(Config(dict(model=dict(backbone=backbone)))):
                raise urllib.error.URLError('no route')

    def test_checkpoint(self):
        cfg = Config(dict(model=dict(), load_from='https://example.org/b.pth'))
        with pytest.raises(ConnectionError, match=r'b\.pth.*name a local copy of the checkpoint'):
            with explain_downloads(cfg):
                raise urllib.error.URLError('no route')

    def test_other_errors_pass(self, cfg):
        with pytest.raises(OSError, match='disk full'):
            with explain_downloads(cfg):
                raise OSError('disk full')


class TestExplainFullDisk:
    @pytest.mark.parametrize(
        'error',
        [
            OSError(errno.ENOSPC, 'No space left on device'),
            OSError(errno.EDQUOT, 'Disk quota exceeded'),
            RuntimeError('[enforce fail] . PytorchStreamWriter failed writing file data/0: file'),
        ],
    )
    def test_names_the_folders_with_the_least_room_first(self, error, tmp_path, monkeypatch):
        free = {tmp_path / 'a': 3 * 2**30, tmp_path / 'b': 2**20}
        monkeypatch.setattr(
            'shutil.disk_usage', lambda folder: SimpleNamespace(free=free[Path(folder)])
        )
        with pytest.raises(OSError, match=r'The disk is full: writing to') as caught_error:
            with explain_full_disk(*free):
                raise error
        sentence = str(caught_error.value)
        assert f'{tmp_path}/b (1 MiB free) or {tmp_path}/a (3,072 MiB free) failed' in sentence

    def test_a_disk_that_is_full(self):
        """The kernel's own."""
        with pytest.raises(OSError, match='The disk is full'), explain_full_disk('/dev/shm'):
            with open('/dev/full', 'w') as file:
                file.write('a')
        with pytest.raises(OSError, match='The disk is full'), explain_full_disk('/dev/shm'):
            torch.save(dict(a=torch.ones(9)), '/dev/full')

    def test_other_errors_pass(self):
        with pytest.raises(OSError, match=r'^a$'), explain_full_disk('/'):
            raise OSError('a')
