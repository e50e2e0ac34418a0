"""Every accommodation to a version of the stack, each with its reason and when it can go.

:func:`give_back_find_loader` and :func:`apply` run when ``mhc_plugin`` is imported and change only
what is the matter here; the functions of the second half are called by ``mhc_plugin.apis`` where
there is no GPU.
"""

import difflib
import inspect
import os.path as osp
import pickle
import pkgutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

PACKAGE = 'mhc_plugin'


def give_back_find_loader() -> None:
    """Let MMEngine and mmcv look for mmcv's compiled operations on Python 3.14.

    Reason: mmengine 0.10.7 and mmcv 2.2.0 call ``pkgutil.find_loader``, which Python 3.14 has
    dropped. Can go when both ask ``importlib.util.find_spec``.
    """

    def find_loader(fullname: str) -> Any:
        spec = find_spec(fullname)
        return None if spec is None else spec.loader

    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = find_loader


@cache
def apply() -> None:
    """Make MMEngine and MMPretrain work on this machine and know this package."""
    silence_imports()
    allow_mmengine_checkpoints()
    replace_pkg_resources()
    open_config_package()
    register_models_by_name()
    remember_config_text()
    keep_unknown_labels_unknown()
    log_scalars_without_copies()
    tell_directions_of_metrics()


def silence_imports() -> None:
    """Leave out two warnings that nobody who runs a tool can do anything about.

    Reason: mmcv-lite, which the extra brings, says that it lacks an operation that nothing here
    uses, and setuptools says that MMEngine 0.10.7 should not use ``pkg_resources``. Can go with
    either.
    """
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated as an API')


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read what an MMEngine checkpoint holds, and no more.

    Reason: torch 2.6 made ``weights_only=True`` the default; MMEngine 0.10.7 calls ``torch.load``
    without it, and its checkpoints hold the log's ``HistoryBuffer`` and NumPy arrays. Can go when
    MMEngine reads its own checkpoints on torch 2.6 and later, as onedl-mmengine does.
    """
    import mmengine.runner.checkpoint as mmengine_checkpoint
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    if hasattr(mmengine_checkpoint, 'get_torch_safe_globals'):
        return

    def history_buffer_attr(obj: Any, name: str) -> Any:
        # A HistoryBuffer is pickled with its own four methods, by way of `getattr`, which must not
        # be allowed as it is: it gives access to anything.
        if obj is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
            return getattr(HistoryBuffer, name)
        raise pickle.UnpicklingError(f'attribute {name!r} of {obj!r} is not allowed')

    core = 'numpy._core' if find_spec('numpy._core') else 'numpy.core'
    multiarray = import_module(f'{core}.multiarray')
    scalar_types = ('?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            (history_buffer_attr, 'builtins.getattr'),
            # A checkpoint of NumPy 1 names `numpy.core`, one of NumPy 2 `numpy._core`.
            *[
                (getattr(multiarray, function), f'{module}.multiarray.{function}')
                for function in ('_reconstruct', 'scalar')
                for module in ('numpy._core', 'numpy.core')
            ],
            *{type(np.dtype(name)) for name in scalar_types},
        ]
    )


def replace_pkg_resources() -> None:
    """Find installed packages without ``pkg_resources``.

    Reason: MMEngine 0.10.7 imports ``pkg_resources`` for ``_base_ = 'mmpretrain::...'``, and
    setuptools 82 has dropped it. Can go when MMEngine uses ``importlib.metadata``, as
    onedl-mmengine does.
    """
    import mmengine.config.config
    import mmengine.hub.hub
    import mmengine.utils.package_utils
    from mmengine.config.utils import MODULE2PACKAGE

    uses_it = 'pkg_resources' in mmengine.utils.package_utils.is_installed.__code__.co_names
    if not uses_it or find_spec('pkg_resources') is not None:
        return

    def origin(package: str) -> str | None:
        names = [module for module, name in MODULE2PACKAGE.items() if name == package]
        spec = find_spec(names[0] if names else package)
        return None if spec is None else spec.origin

    def is_installed(package: str) -> bool:
        return origin(package) is not None

    def get_installed_path(package: str) -> str:
        path = origin(package)
        if path is None:
            raise ModuleNotFoundError(f'{package} is not installed.')
        return osp.dirname(path)

    users = (mmengine.utils.package_utils, mmengine.utils, mmengine.config.config, mmengine.hub.hub)
    for user in users:
        for function in (is_installed, get_installed_path):
            if hasattr(user, function.__name__):
                setattr(user, function.__name__, function)


def config_root() -> Path:
    """The folder that holds ``configs`` and ``model-index.yml``.

    It is ``mhc_plugin/.mim`` in a plain install and the checkout in an editable one, where
    nothing is copied.
    """
    package = Path(__file__).parent
    installed = package / '.mim'
    return installed if installed.is_dir() else package.parent


def config_file(name: str) -> Path:
    """Find a config of this package.

    Args:
        name (str): Its path below ``configs``, with or without ``.py``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is none; the message names the closest ones.
    """
    root = config_root() / 'configs'
    path = root / (name if osp.splitext(name)[1] else f'{name}.py')
    if path.is_file():
        return path
    known = [file.relative_to(root).as_posix() for file in root.rglob('*.py')]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
    hint = f' Did you mean {" or ".join(close)}?' if close else f' Configs are in {root}.'
    raise FileNotFoundError(f'There is no config {PACKAGE}::{name}.{hint}')


def open_config_package() -> None:
    """Make ``_base_ = 'mhc_plugin::mhc/<config>.py'`` work.

    Reason: MMEngine's table of packages is fixed, it takes the package's name for the scope of
    the registry (ours is MMPretrain's), and does not find the package of an editable install. Can
    go when MMEngine lets a package declare its configs and scope.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    original = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition('::')
        if package != PACKAGE or not name:
            return original(cfg_path, filename)
        return str(config_file(name)), 'mmpretrain'

    Config._get_cfg_path = staticmethod(get_cfg_path)
    MODULE2PACKAGE[PACKAGE] = PACKAGE


def register_models_by_name() -> None:
    """Let MMPretrain's ``get_model`` and ``list_models`` know the configs of this package.

    Reason: ``ModelHub`` reads the index of MMPretrain alone. Ours is read, as MMPretrain's is, when
    a model is first asked for. Can go when MMPretrain lets a package announce its index.
    """
    from mmpretrain.apis.model import ModelHub

    original = ModelHub._register_mmpretrain_models.__func__
    registered = []

    def register(cls: type) -> None:
        original(cls)
        if not registered:
            registered.append(True)
            root = config_root()
            cls.register_model_index(root / 'model-index.yml', config_prefix=root)

    ModelHub._register_mmpretrain_models = classmethod(register)


def remember_config_text() -> None:
    """Format a config once, not for every checkpoint.

    Reason: MMEngine puts the config's text into every checkpoint, and formatting it takes 0.2 to
    0.5 s, as long as an epoch over stored features. Can go when MMEngine keeps the text.
    """
    from mmengine.config import Config

    original = Config.pretty_text.fget
    last = {}

    def pretty_text(self: Config) -> str:
        content = repr(self._cfg_dict)
        if content not in last:
            text = original(self)
            last.clear()
            last[content] = text
        return last[content]

    Config.pretty_text = property(pretty_text, doc=original.__doc__)


def tell_directions_of_metrics() -> None:
    """Let the hooks that look for the best score know which way our metrics are better.

    Reason: without a ``rule`` they go by parts of a name, such as ``top``, which the Hamming
    distance of top-k labels has in it, so that its worst would be the best. Can go when a metric
    can say it itself.
    """
    from mmengine.hooks import CheckpointHook, EarlyStoppingHook

    init_rules, init_rule = CheckpointHook._init_rule, EarlyStoppingHook._init_rule

    def init_rules_of(
        self: CheckpointHook, rules: list[str | None], key_indicators: list[str]
    ) -> None:
        from mhc_plugin.evaluation.directions import direction

        if len(rules) == 1:
            rules = rules * len(key_indicators)
        rules = [rule or direction(key) for rule, key in zip(rules, key_indicators)]
        init_rules(self, rules, key_indicators)

    def init_rule_of(self: EarlyStoppingHook, monitor: str) -> str:
        from mhc_plugin.evaluation.directions import direction

        return direction(monitor) or init_rule(self, monitor)

    CheckpointHook._init_rule, EarlyStoppingHook._init_rule = init_rules_of, init_rule_of


def keep_unknown_labels_unknown() -> None:
    """Mix no unknown label into a target: it is unknown where that of either image is.

    Reason: Mixup, CutMix and ResizeMix of MMPretrain 1.2.0 take the -1 of an unknown label for a
    number, so that half of it is trained on. They mix scores of any number of columns, one by one.
    Can go when MMPretrain knows unknown labels.
    """
    import torch
    from mmpretrain.models.utils.batch_augments import RandomBatchAugment

    mix = RandomBatchAugment.__call__

    @wraps(mix)
    def mix_known(self: Any, batch_input: Any, batch_score: Any) -> tuple[Any, Any]:
        unknown = batch_score < 0
        if not unknown.any():
            return mix(self, batch_input, batch_score)
        columns = torch.cat([batch_score.clamp(min=0), unknown.to(batch_score)], dim=1)
        batch_input, columns = mix(self, batch_input, columns)
        score, unknown = columns.chunk(2, dim=1)
        return batch_input, score.masked_fill(unknown > 0, -1)

    RandomBatchAugment.__call__ = mix_known


def log_scalars_without_copies() -> None:
    """Log a number in time that does not grow with the run.

    Reason: ``HistoryBuffer.update`` of mmengine 0.10.7 copies the whole history, of up to a million
    numbers, for each of several numbers an iteration. An iteration from the feature cache takes
    a millisecond, and runs have hundreds of thousands. Can go when MMEngine's keeps room.
    """
    from mmengine.logging import HistoryBuffer

    # Beside the buffers, whose attributes go into checkpoints.
    rooms = WeakKeyDictionary()

    def update(self: Any, log_val: float, count: float = 1) -> None:
        if not isinstance(log_val, (int, float)) or not isinstance(count, (int, float)):
            raise TypeError(
                'Expected arguments `log_val` and `count` to be numbers, but got '
                f'{type(log_val).__name__} and {type(count).__name__}.'
            )
        room, size = rooms.get(self), len(self._log_history)
        is_full = room is None or self._log_history.base is not room or size == room.shape[1]
        if is_full or size >= self.max_length:
            histories = [
                h[-self.max_length + 1 :] for h in (self._log_history, self._count_history)
            ]
            if self.max_length == 1:
                histories = [h[:0] for h in histories]
            size = len(histories[0])
            room = rooms[self] = np.empty((2, max(64, 2 * size)))
            room[:, :size] = histories
        room[:, size] = log_val, count
        self._log_history, self._count_history = room[:, : size + 1]

    HistoryBuffer.update = update


def init_process_group(launcher: str, dist_cfg: dict | None = None) -> None:
    """Start the processes' group as MMEngine does, and with gloo where there is no GPU.

    Reason: MMEngine's ``init_dist`` sets a CUDA device whether there is one or not. Can go when
    it does so only with CUDA.

    Args:
        launcher (str): ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        dist_cfg (dict, optional): ``env_cfg.dist_cfg`` of the config: backend, timeout and more.
    """
    from mmengine.device import get_device
    from mmengine.dist import init_dist

    dist_cfg = dict(dist_cfg or {})
    if get_device() != 'cpu':
        init_dist(launcher, **dist_cfg)
        return
    dist_cfg['backend'] = 'gloo'
    with _without_cuda_device():
        init_dist(launcher, **dist_cfg)


@contextmanager
def _without_cuda_device() -> Iterator[None]:
    """Make ``torch.cuda.set_device`` do nothing."""
    import torch

    original = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = original


def adapt_to_cpu(cfg: Any) -> None:
    """Change a config so that it trains and tests without a GPU.

    Each change has its reason and can go when that is gone:

    - MMEngine hands ``device_ids`` to ``DistributedDataParallel``, which refuses them on CPU.
    - ``AmpOptimWrapper`` insists on a GPU; on CPU autocast needs no scaling of the loss.
    - torch warns at every data loader that pins memory without an accelerator.

    Args:
        cfg (Config): Changed in place. ``cfg.launcher`` must be set.
    """
    if cfg.launcher != 'none':
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'device_ids': None,
            _keep_buffers_apart(): False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
            **(cfg.get('model_wrapper_cfg') or {}),
        }
    optim_wrapper = cfg.get('optim_wrapper') or {}
    if optim_wrapper.get('type') == 'AmpOptimWrapper':
        optim_wrapper['type'] = 'mmpretrain.CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            optim_wrapper.pop(key, None)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name]['pin_memory'] = False


def _keep_buffers_apart() -> str:
    """The argument of ``DistributedDataParallel`` that MMEngine sets to False; torch renames it."""
    from torch.nn.parallel import DistributedDataParallel

    new = 'forward_sync_buffers'
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return new if new in known else 'broadcast_buffers'


@contextmanager
def open_batch_of_windows() -> Iterator[None]:
    """Let Swin be exported for batches of any size.

    Reason: MMPretrain's windowed attention computes the batch size by ``int()`` of a float, which
    an export takes for a constant. Can go when it does not.
    """
    from mmpretrain.models.utils import ShiftWindowMSA

    def window_reverse(windows: Any, height: int, width: int, window_size: int) -> Any:
        channels = windows.shape[-1]
        x = windows.view(
            -1, height // window_size, width // window_size, window_size, window_size, channels
        )
        return x.transpose(2, 3).reshape(-1, height, width, channels)

    original = vars(ShiftWindowMSA)['window_reverse']
    ShiftWindowMSA.window_reverse = staticmethod(window_reverse)
    try:
        yield
    finally:
        ShiftWindowMSA.window_reverse = original
