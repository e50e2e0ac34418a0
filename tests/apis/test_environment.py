import pytest
from mmengine.config import Config

from mhc_plugin.apis import environment
from mhc_plugin.apis.environment import (
    add_hooks,
    build_runner,
    replace_pretrained,
    set_loader_defaults,
    set_work_dir,
    split_total_batch,
    start_processes,
)


@pytest.mark.parametrize(
    ('content', 'argument', 'expected'),
    [
        (dict(work_dir='b'), 'a', 'a'),
        (dict(work_dir='b'), None, 'b'),
        (dict(), None, 'work_dirs/c'),
    ],
)
def test_work_dir_is_that_of_the_argument_the_config_or_its_name(
    content, argument, expected, tmp_path
):
    (tmp_path / 'c.py').touch()
    cfg = Config(content, filename=tmp_path / 'c.py')
    set_work_dir(cfg, argument)
    assert cfg.work_dir == expected


class TestLoaderDefaults:
    def test_those_of_mmpretrain(self):
        cfg = Config(dict(a=dict(num_workers=2), b=None))
        set_loader_defaults(cfg, ('a', 'b', 'c'))
        assert cfg.a == dict(
            num_workers=2,
            pin_memory=True,
            persistent_workers=True,
            collate_fn=dict(type='default_collate'),
        )
        assert cfg.b is None
        assert 'c' not in cfg

    def test_config_goes_first(self):
        cfg = Config(dict(a=dict(num_workers=2, pin_memory=False, collate_fn=dict(type='x'))))
        set_loader_defaults(cfg, ('a',))
        assert cfg.a.pin_memory is False
        assert cfg.a.collate_fn.type == 'x'

    def test_arguments_override(self):
        cfg = Config(dict(a=dict(num_workers=2, pin_memory=True, persistent_workers=True)))
        set_loader_defaults(cfg, ('a',), pin_memory=False, persistent_workers=False)
        assert (cfg.a.pin_memory, cfg.a.persistent_workers) == (False, False)

    def test_no_workers_cannot_persist(self):
        cfg = Config(dict(a=dict(num_workers=0, persistent_workers=True)))
        set_loader_defaults(cfg, ('a',))
        assert cfg.a.persistent_workers is False


class TestSplitTotalBatch:
    @pytest.fixture
    def world_size(self, monkeypatch):

        def set_world_size(size):
            monkeypatch.setattr(environment, 'get_world_size', lambda: size)

        return set_world_size

    @pytest.mark.parametrize(
        ('batch', 'total', 'processes', 'expected'),
        [
            (128, 128, 1, 128),
            (128, 128, 2, 64),
            # The batch of one process, as everywhere in MMEngine.
            (64, 128, 2, 64),
            (128, None, 2, 128),
        ],
    )
    def test_batch_of_a_process(self, world_size, batch, total, processes, expected):
        world_size(processes)
        cfg = Config(dict(train_dataloader=dict(batch_size=batch), total_batch_size=total))
        split_total_batch(cfg)
        assert cfg.train_dataloader.batch_size == expected

    def test_uneven(self, world_size):
        world_size(3)
        cfg = Config(dict(train_dataloader=dict(batch_size=128), total_batch_size=128))
        with pytest.raises(
            ValueError,
            match=r'`total_batch_size` \(128\) to be divisible by the '
            r'number of processes \(3\)',
        ):
            split_total_batch(cfg)


def test_launcher_without_torchrun(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='Launcher `pytorch` expects torchrun to set RANK'):
        start_processes(Config(dict()), 'pytorch')


class TestReplacePretrained:
    @pytest.fixture
    def cfg(self):
        return Config(
            dict(
                model=dict(
                    type='ImageClassifier',
                    pretrained='https://example.org/a.pth',
                    backbone=dict(
                        type='TIMMBackbone',
                        pretrained=True,
                        init_cfg=dict(type='Pretrained', checkpoint='https://example.org/a.pth'),
                    ),
                )
            )
        )

    def test_nothing_is_left_to_download(self, cfg):
        replace_pretrained(cfg, 'none')
        assert cfg.model == dict(
            type='ImageClassifier', backbone=dict(type='TIMMBackbone', pretrained=False)
        )
        assert cfg.backbone_weights == 'none'

    def test_missing_file(self, cfg):
        with pytest.raises(FileNotFoundError, match=r'There is no file a\.pth .* or `none`'):
            replace_pretrained(cfg, 'a.pth')

    def test_model_without_backbone(self):
        with pytest.raises(ValueError, match='Expected a model with a backbone, but Odd has none'):
            replace_pretrained(Config(dict(model=dict(type='Odd'))), 'none')


def test_hooks_can_be_replaced_by_name_and_left_out():
    cfg = Config(dict(default_hooks=dict(a=dict(type='Mine'), b=None, timer=None)))
    add_hooks(cfg, a=dict(type='A'), b=dict(type='B'), c=dict(type='C'))
    assert cfg.default_hooks == dict(a=dict(type='Mine'), c=dict(type='C'), timer=None)


@pytest.mark.parametrize('option', ['--work-dir', '--cache-dir'])
def test_folder_that_cannot_be_made(tmp_path, option):
    (tmp_path / 'file').touch()
    bad, good = tmp_path / 'file' / 'x', tmp_path / 'good'
    work_dir, cache_dir = (bad, good) if option == '--work-dir' else (good, bad)
    cfg = Config(dict(work_dir=str(work_dir), train_cfg=dict(cache=dict(cache_dir=str(cache_dir)))))
    with pytest.raises(
        OSError,
        match=f'Folder {bad} cannot be made .Not a directory.: name another with `{option}`',
    ):
        build_runner(cfg)
