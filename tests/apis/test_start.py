"""What a run says on the screen before it starts, and what it leaves to its log."""

import re

import pytest
from mmengine.config import Config
from tiny_cache_run import make_cfg, make_images

from mhc_plugin import apis


@pytest.fixture
def cfg(tmp_path):
    cfg = make_cfg(make_images(tmp_path / 'images'), tmp_path / 'work', cached=False, epochs=2)
    cfg.log_level = 'INFO'
    return cfg


def log_of(folder):
    return '\n'.join(path.read_text() for path in folder.rglob('*.log'))


def test_a_training_says_in_a_few_lines_what_it_does(cfg, capsys, tmp_path):
    apis.train(cfg)
    screen = capsys.readouterr().out
    start = screen.partition('Epoch(train)')[0].splitlines()
    assert len(start) < 10
    assert 'Images:   12 for training, 12 for validation (MultiLabelDataset)' in start
    assert 'Classes:  4: class 0, class 1, class 2, class 3' in start
    model = next(line for line in start if line.startswith('Model:'))
    # 12 channels to 4 classes, with biases.
    assert model.startswith('Model:    TinyBackbone, MultiHeadClsHead: 52 parameters are trained, ')
    schedule = next(line for line in start if line.startswith('Schedule:'))
    assert '2 epochs of 3 iterations of 4 images; SGD with a learning rate of 0.1' in schedule
    assert any(str(tmp_path / 'work') in line for line in start if line.startswith('Files:'))
    # Neither MMEngine's account of itself nor its deprecations; the log file has them.
    for text in ('Config:', 'Hooks will be executed', '"FileClient" will be deprecated'):
        assert text not in screen
        assert text in log_of(tmp_path / 'work')


def test_mmengines_own_account_on_request(cfg, capsys):
    apis.train(cfg, verbose=True)
    screen = capsys.readouterr().out
    assert 'Hooks will be executed in the following order' in screen
    assert 'Images:   12 for training' in screen


def test_a_cached_training_says_where_features_are(tmp_path, capsys):
    cfg = make_cfg(make_images(tmp_path / 'images'), tmp_path / 'work', epochs=1)
    cfg.log_level = 'INFO'
    apis.train(cfg)
    assert f'Features: stored once in {tmp_path / "cache"}' in capsys.readouterr().out


def test_a_test_says_what_it_reads(cfg, capsys, tmp_path):
    apis.train(cfg)
    capsys.readouterr()
    apis.test(cfg, tmp_path / 'work' / 'epoch_2.pth')
    screen = capsys.readouterr().out
    assert 'Images:   12 for test (MultiLabelDataset)' in screen
    assert 'Schedule' not in screen
    assert 'Hooks will be executed' not in screen


def test_the_last_lines_say_what_to_do_next(cfg, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg.dump(tmp_path / 'mine.py')
    apis.train(Config.fromfile('mine.py'))
    *_, checkpoint, scores, maps = capsys.readouterr().out.splitlines()
    assert f'Last checkpoint: {tmp_path / "work" / "epoch_2.pth"}' in checkpoint
    assert 'Last validation: multi-label/mAP' in scores
    command = maps.partition(': python ')[2]
    assert command == 'tools/class_maps.py mine.py work/epoch_2.pth --dataset test'


class TestNothingToTrain:
    @pytest.fixture
    def dropping(self, cfg):
        cfg.train_dataloader.update(batch_size=16, drop_last=True)
        return cfg

    def test_fewer_images_than_a_batch(self, dropping, tmp_path):
        with pytest.raises(
            ValueError,
            match=re.escape(
                'Nothing would be trained: `train_dataloader` gives no batch of 12 images with '
                'batch_size=16 and drop_last=True. Lower `train_dataloader.batch_size`'
            ),
        ):
            apis.train(dropping)
        assert not list(tmp_path.glob('work/*.pth'))

    def test_of_features(self, tmp_path):
        cfg = make_cfg(make_images(tmp_path / 'images'), tmp_path / 'work', epochs=1)
        cfg.train_dataloader.update(batch_size=16, drop_last=True)
        with pytest.raises(ValueError, match='Nothing would be trained'):
            apis.train(cfg)
        assert not list(tmp_path.glob('cache/*'))

    def test_one_batch_is_enough(self, dropping, tmp_path):
        dropping.train_dataloader.batch_size = 12
        apis.train(dropping)
        assert (tmp_path / 'work' / 'epoch_2.pth').is_file()
