"""The accommodations to the stack."""

import importlib
import pickle
import pkgutil
import sys
import types
from importlib.util import find_spec

import mmengine.config.config
import mmengine.hub.hub
import mmengine.utils.package_utils
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mhc_plugin import compat

READS_ITS_OWN = hasattr(mmengine.runner.checkpoint, 'get_torch_safe_globals')


class TestHistoryBuffer:
    @pytest.mark.parametrize('max_length', [1, 2, 5, 64, 100, 10**6])
    def test_holds_what_a_list_would(self, max_length):
        buffer, values, seen = HistoryBuffer([7.0], [2], max_length=max_length), [(7.0, 2)], []
        for i in range(200):
            buffer.update(i / 3, i % 4)
            values.append((i / 3, i % 4))
            seen.append((buffer.data[0], [v for v, _ in values][-max_length:]))
            if i == 150:
                buffer = pickle.loads(pickle.dumps(buffer))
        log, count = zip(*values)
        assert buffer.data[0].tolist() == list(log[-max_length:])
        assert buffer.data[1].tolist() == list(count[-max_length:])
        assert buffer.current() == log[-1]
        # What was handed out stays as it was.
        assert all(got.tolist() == list(expected) for got, expected in seen)

    def test_takes_up_what_others_put_there(self):
        buffer = HistoryBuffer()
        for i in range(3):
            buffer.update(i)
        buffer._log_history, buffer._count_history = np.array([5.0]), np.array([1])
        buffer.update(6)
        assert buffer.data[0].tolist() == [5, 6]

    def test_pickles_only_its_history(self):
        buffer = HistoryBuffer()
        for i in range(1000):
            buffer.update(i)
        assert set(vars(buffer)) == set(vars(HistoryBuffer()))
        assert len(pickle.dumps(buffer)) < 2 * 8 * 1000 + 1000

    @pytest.mark.parametrize('given', [('1', 1), (1, None)])
    def test_takes_numbers_alone(self, given):
        with pytest.raises(TypeError, match='to be numbers'):
            HistoryBuffer().update(*given)


class TestFindLoader:
    def test_is_given_back_where_python_dropped_it(self, monkeypatch):
        monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
        compat.give_back_find_loader()
        assert pkgutil.find_loader('mmcv') is find_spec('mmcv').loader
        assert pkgutil.find_loader('mmcv._ext_of_nobody') is None
        # Who calls it: mmengine, for the environment that a run logs.
        assert mmengine.utils.dl_utils.misc.mmcv_full_available() in (True, False)

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason='Python has dropped it')
    def test_pythons_own_is_left_alone(self):
        own = pkgutil.find_loader
        compat.give_back_find_loader()
        assert pkgutil.find_loader is own


class TestCheckpoints:
    @pytest.fixture
    def checkpoint(self):
        history = HistoryBuffer([1.5, 2.5], [1, 1])
        scalars = {name: np.dtype(name).type(1) for name in ('?', 'i4', 'u1', 'f2', 'f4', 'f8')}
        return dict(state_dict=dict(w=torch.ones(2)), message_hub=dict(log=history, **scalars))

    def test_mmengine_checkpoint_can_be_read(self, checkpoint, tmp_path):
        torch.save(checkpoint, tmp_path / 'a.pth')
        loaded = _load_checkpoint(str(tmp_path / 'a.pth'))
        assert loaded['message_hub']['log'].mean() == 2.0
        assert loaded['message_hub']['f4'] == np.float32(1)

    @pytest.mark.skipif(READS_ITS_OWN, reason='this MMEngine reads its checkpoints its own way')
    @pytest.mark.parametrize('written_by', ['numpy.core', 'numpy._core'])
    def test_checkpoint_of_either_numpy(self, written_by, tmp_path):
        torch.save(dict(a=np.arange(3.0)), tmp_path / 'a.pth', pickle_module=_rename(written_by))
        assert torch.load(tmp_path / 'a.pth', weights_only=True)['a'].tolist() == [0, 1, 2]

    @pytest.mark.skipif(READS_ITS_OWN, reason='this MMEngine reads its checkpoints its own way')
    @pytest.mark.parametrize(
        'hostile',
        [(getattr, (HistoryBuffer, '__init__')), (getattr, (dict, 'update')), (eval, ('1 + 1',))],
    )
    def test_hostile_checkpoint_is_refused(self, hostile, tmp_path):

        class Hostile:
            def __reduce__(self):
                return hostile

        torch.save(dict(a=Hostile()), tmp_path / 'a.pth')
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / 'a.pth', weights_only=True)

    def test_a_fork_that_reads_its_own_is_left_alone(self, monkeypatch):
        monkeypatch.setattr(
            mmengine.runner.checkpoint, 'get_torch_safe_globals', list, raising=False
        )
        monkeypatch.setattr(torch.serialization, 'add_safe_globals', pytest.fail)
        compat.allow_mmengine_checkpoints()


def _rename(module: str) -> types.SimpleNamespace:
    """A pickle module that names NumPy's arrays as another version does."""

    class Pickler(pickle._Pickler):
        def save_global(self, obj, name=None):
            if getattr(obj, '__module__', '').endswith('_core.multiarray'):
                self.write(pickle.GLOBAL + f'{module}.multiarray\n{obj.__name__}\n'.encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = {**pickle._Pickler.dispatch, types.FunctionType: save_global}
        dispatch[types.BuiltinFunctionType] = save_global

    return types.SimpleNamespace(Pickler=Pickler, __name__='pickle')


class TestPkgResources:
    @pytest.fixture
    def users(self, monkeypatch):
        """The modules that hold the functions, put back afterwards."""
        modules = (
            mmengine.utils.package_utils,
            mmengine.utils,
            mmengine.config.config,
            mmengine.hub.hub,
        )
        for module in modules:
            for name in ('is_installed', 'get_installed_path'):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, getattr(module, name))
        return modules

    def test_packages_are_found_without_it(self, users, monkeypatch, tmp_path):

        def is_installed(package):
            import pkg_resources

            return pkg_resources

        find_spec = importlib.util.find_spec
        monkeypatch.setattr(mmengine.utils.package_utils, 'is_installed', is_installed)
        monkeypatch.setattr(
            compat, 'find_spec', lambda name: None if name == 'pkg_resources' else find_spec(name)
        )
        compat.replace_pkg_resources()

        for module in users[1:3]:
            assert module.is_installed('mmpretrain')
            assert not module.is_installed('a_package_of_nobody')
            assert module.get_installed_path('mmpretrain') == mmpretrain.__path__[0]
        with pytest.raises(ModuleNotFoundError, match='a_package_of_nobody is not installed'):
            users[1].get_installed_path('a_package_of_nobody')
        config = tmp_path / 'a.py'
        config.write_text("_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'")
        assert Config.fromfile(config).model.backbone.depth == 50

    def test_left_alone_where_it_is_there(self, users, monkeypatch):
        before = mmengine.config.config.is_installed
        monkeypatch.setattr(compat, 'find_spec', lambda name: object())
        compat.replace_pkg_resources()
        assert mmengine.config.config.is_installed is before


class TestConfigs:
    def test_config_of_this_package_as_a_base(self, tmp_path):
        config = tmp_path / 'a.py'
        config.write_text(
            "_base_ = 'mhc_plugin::_base_/default_runtime.py'\nhooks = {{_base_.default_hooks}}"
        )
        cfg = Config.fromfile(config)
        assert cfg.custom_imports.imports == ['mhc_plugin']
        # The registry to look in is MMPretrain's: there is none of the package's name.
        assert cfg.hooks.timer['_scope_'] == 'mmpretrain'

    def test_config_that_is_not_there(self, tmp_path):
        config = tmp_path / 'a.py'
        config.write_text("_base_ = 'mhc_plugin::_base_/default_runtimes.py'")
        with pytest.raises(FileNotFoundError, match=r'Did you mean _base_/default_runtime\.py\?'):
            Config.fromfile(config)
        with pytest.raises(FileNotFoundError, match='Configs are in '):
            compat.config_file('zzz')

    def test_other_packages_as_before(self, tmp_path):
        config = tmp_path / 'a.py'
        config.write_text("_base_ = ['mmpretrain::_base_/default_runtime.py', 'b.py']")
        (tmp_path / 'b.py').write_text('b = 1')
        cfg = Config.fromfile(config)
        assert (cfg.default_scope, cfg.b) == ('mmpretrain', 1)

    def test_a_plain_install_keeps_them_in_the_package(self, monkeypatch, tmp_path):
        package = tmp_path / 'mhc_plugin'
        monkeypatch.setattr(compat, '__file__', str(package / 'compat.py'))
        assert compat.config_root() == tmp_path
        (package / '.mim').mkdir(parents=True)
        assert compat.config_root() == package / '.mim'


def test_config_is_formatted_once(monkeypatch):
    import yapf.yapflib.yapf_api as yapf_api

    calls = []
    original = yapf_api.FormatCode

    def counting(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(yapf_api, 'FormatCode', counting)
    monkeypatch.setattr('mmengine.config.config.FormatCode', counting, raising=False)
    one, other = Config(dict(a=dict(b=[1, 2]), c='x')), Config(dict(a=1))
    text = one.pretty_text
    assert Config.fromstring(text, '.py').to_dict() == one.to_dict()
    assert one.pretty_text == text
    assert len(calls) == 1
    one.a.b.append(3)
    assert Config.fromstring(one.pretty_text, '.py').a.b == [1, 2, 3]
    assert Config.fromstring(other.pretty_text, '.py').a == 1
    assert len(calls) == 3


@pytest.mark.parametrize(
    'augment',
    [
        dict(type='Mixup', alpha=1.0),
        dict(type='CutMix', alpha=1.0),
        dict(type='ResizeMix', alpha=1.0),
    ],
)
def test_mixed_labels_are_unknown_where_either_is(augment):
    """The reference mixes the two images' known labels by the share that a marked pixel shows."""
    preprocessor = MODELS.build(
        dict(type='ClsDataPreprocessor', batch_augments=dict(augments=augment))
    )
    targets = torch.tensor([[1.0, 0, -1, 1], [0, 1, 1, -1], [1, -1, 0, 0]])
    torch.manual_seed(0)
    np.random.seed(0)
    mixed = 0
    for _ in range(20):
        samples = [DataSample().set_gt_score(target) for target in targets]
        images = torch.eye(3).reshape(3, 3, 1, 1).expand(3, 3, 8, 8).contiguous()
        batch = preprocessor(dict(inputs=images, data_samples=samples), training=True)
        shares = batch['inputs'].mean((2, 3))
        for share, sample in zip(shares, batch['data_samples']):
            part = share > 0
            unknown = (targets[part] == -1).any(0)
            expected = torch.where(unknown, -1.0, share @ targets.clamp(min=0))
            torch.testing.assert_close(sample.gt_score, expected)
            mixed += part.sum() > 1
    assert mixed > 20


def test_models_by_name():
    names = mmpretrain.list_models('efficientnet-lite0_multifc_*')
    assert 'efficientnet-lite0_multifc_combined0' in names
    meta = ModelHub.get('efficientnet-lite0_multifc_combined0')
    assert meta.config.model.type == 'FrozenBackboneClassifier'
    assert 'resnet50_8xb32_in1k' in mmpretrain.list_models()


class TestOnCPU:
    @pytest.fixture
    def cfg(self):
        return Config(
            dict(
                launcher='pytorch',
                find_unused_parameters=True,
                optim_wrapper=dict(
                    type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD')
                ),
                train_dataloader=dict(pin_memory=True),
                val_dataloader=None,
            )
        )

    def test_config_is_changed_where_a_gpu_is_needed(self, cfg):
        compat.adapt_to_cpu(cfg)
        wrapper = cfg.model_wrapper_cfg
        assert (wrapper.type, wrapper.device_ids) == ('MMDistributedDataParallel', None)
        assert wrapper.find_unused_parameters is True
        assert isinstance(wrapper, ConfigDict)
        assert cfg.optim_wrapper == dict(
            type='mmpretrain.CPUAmpOptimWrapper', optimizer=dict(type='SGD')
        )
        assert cfg.train_dataloader.pin_memory is False

    def test_what_the_config_says_stays(self, cfg):
        cfg.model_wrapper_cfg = dict(type='Mine', find_unused_parameters=False)
        cfg.optim_wrapper = dict(type='OptimWrapper', clip_grad=dict(max_norm=1))
        compat.adapt_to_cpu(cfg)
        assert cfg.model_wrapper_cfg.type == 'Mine'
        assert cfg.model_wrapper_cfg.find_unused_parameters is False
        assert cfg.optim_wrapper == dict(type='OptimWrapper', clip_grad=dict(max_norm=1))

    def test_no_wrapper_for_one_process(self, cfg):
        cfg.launcher = 'none'
        compat.adapt_to_cpu(cfg)
        assert 'model_wrapper_cfg' not in cfg

    @pytest.mark.parametrize(('device', 'backend'), [('cpu', 'gloo'), ('cuda', 'nccl')])
    def test_gloo_where_there_is_no_gpu(self, monkeypatch, device, backend):
        calls = []

        def init_dist(launcher, **kwargs):
            if device == 'cpu':
                torch.cuda.set_device(0)
            calls.append((launcher, kwargs))

        set_device = torch.cuda.set_device
        monkeypatch.setattr('mmengine.device.get_device', lambda: device)
        monkeypatch.setattr('mmengine.dist.init_dist', init_dist)
        compat.init_process_group('slurm', dict(backend='nccl', timeout=7))
        assert calls == [('slurm', dict(backend=backend, timeout=7))]
        assert torch.cuda.set_device is set_device
        assert not is_distributed()
