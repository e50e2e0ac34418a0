import errno
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import HOOKS, MODELS
from torch.utils.data import DataLoader

from mhc_plugin.cli.errors import explain_downloads, explain_full_disk, in_one_sentence


def caught(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return in_one_sentence(error)
    pytest.fail('nothing was raised')


class Unreadable:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError('Cannot read a.jpg: it is empty.')


class TestInOneSentence:
    def test_misspelt_type(self):
        assert caught(MODELS.build, dict(type='MultiHeadClsHed')) == (
            'There is no MultiHeadClsHed in the model registry of mmpretrain; did you mean '
            'MultiHeadClsHead or ConvMultiHeadClsHead or MultiLabelClsHead?'
        )
        # From MMEngine's registry, the parent.
        assert 'did you mean EMAHook' in caught(HOOKS.build, dict(type='EMAHok'))

    def test_type_that_nothing_is_close_to(self):
        assert 'custom_imports' in caught(MODELS.build, dict(type='zzzzzz'))

    def test_misspelt_argument(self):
        config = dict(type='MultiHeadClsHead', num_classes=2, in_channels=4, droput=1)
        assert "unexpected keyword argument 'droput'" in caught(MODELS.build, config)

    def test_error_in_a_worker(self):
        sentence = caught(lambda: list(DataLoader(Unreadable(), num_workers=1)))
        assert sentence == 'ValueError: Cannot read a.jpg: it is empty.'

    def test_missing_file(self):
        sentence = caught(open, '/not/there.txt')
        assert sentence.startswith('No such file or directory: /not/there.txt.')
        assert 'MHC_DATA_ROOT' in sentence

    def test_codes_for_a_terminal_are_left_out(self):
        assert in_one_sentence(ValueError('Do \x1b[1mthis\x1b[0m.')) == 'Do this.'

    def test_error_without_a_message(self):

        def fail():
            raise AssertionError

        assert caught(fail).startswith(f'AssertionError in {__file__}, line')

    @pytest.mark.parametrize(
        ('error', 'sentence'),
        [
            (ValueError('Expected a.'), 'Expected a.'),
            (FileNotFoundError('There is no config a.'), 'There is no config a.'),
            (IndexError('list index out of range'), 'IndexError: list index out of range'),
            (KeyError('img_path'), 'KeyError: img_path'),
        ],
    )
    def test_sentences_stand_alone_and_others_get_a_name(self, error, sentence):
        assert in_one_sentence(error) == sentence


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
        sentence = in_one_sentence(caught_error.value)
        assert f'{tmp_path}/b (1 MiB free) or {tmp_path}/a (3,072 MiB free) failed' in sentence
        assert 'MHC_DATA_ROOT' not in sentence

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
