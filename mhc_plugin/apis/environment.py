"""What training and testing do to a config before a runner is built from it."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mhc_plugin import compat


def set_work_dir(cfg: Config, work_dir: str | os.PathLike | None) -> None:
    """Set the folder of logs and checkpoints: the argument, the config's, or the config's name."""
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif cfg.get('work_dir') is None:
        name = Path(cfg.filename).stem if cfg.filename else 'config'
        cfg.work_dir = os.path.join('work_dirs', name)


def set_loader_defaults(
    cfg: Config,
    names: tuple[str, ...],
    pin_memory: bool = True,
    persistent_workers: bool | None = True,
) -> None:
    """Give the data loaders the settings that MMPretrain's tools give them.

    Args:
        cfg (Config): Changed in place.
        names (tuple[str]): The loaders' keys.
        pin_memory (bool): False overrides the config. Defaults to True.
        persistent_workers (bool, optional): False overrides the config; None leaves it alone.
            A loader without workers has none to keep. Defaults to True.
    """
    for name in names:
        if cfg.get(name) is None:
            continue
        loader = ConfigDict(pin_memory=True, collate_fn=dict(type='default_collate'))
        if persistent_workers is not None:
            loader.persistent_workers = True
        loader.update(cfg[name])
        if not pin_memory:
            loader.pin_memory = False
        if persistent_workers is False or not loader.get('num_workers'):
            loader.persistent_workers = False
        cfg[name] = loader


def start_processes(cfg: Config, launcher: str) -> None:
    """Join the other processes, if there are any, and fit the config to the device.

    Args:
        cfg (Config): Changed in place.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: If the launcher has not set what it should have.
    """
    cfg.launcher = launcher
    if launcher != 'none' and not is_distributed():
        if launcher == 'pytorch' and 'RANK' not in os.environ:
            raise ValueError(
                'Launcher `pytorch` expects torchrun to set RANK and WORLD_SIZE: start with '
                '`torchrun --nproc_per_node=N tools/train.py ... --launcher pytorch` or '
                'tools/dist_train.sh.'
            )
        for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
            os.environ.setdefault(name, '1')
        env_cfg = cfg.get('env_cfg', {})
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        compat.init_process_group(launcher, env_cfg.get('dist_cfg'))
    if get_device() == 'cpu':
        compat.adapt_to_cpu(cfg)


def split_total_batch(cfg: Config) -> None:
    """Give each process its share of the batch where the config describes the whole.

    It does where ``train_dataloader.batch_size`` equals ``total_batch_size``. Any other batch size
    is that of one process, as everywhere in MMEngine.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ValueError: If the batch cannot be divided evenly.
    """
    total, world_size = cfg.get('total_batch_size'), get_world_size()
    if world_size == 1 or total is None or cfg.train_dataloader.get('batch_size') != total:
        return
    if total % world_size:
        raise ValueError(
            f'Expected `total_batch_size` ({total}) to be divisible by the number of processes '
            f'({world_size}). Set `train_dataloader.batch_size` to the batch of one process.'
        )
    cfg.train_dataloader.batch_size = total // world_size


def replace_pretrained(cfg: Config, weights: str | os.PathLike) -> None:
    """Take the published weights of the backbone out of a config.

    Args:
        cfg (Config): Changed in place; ``cfg.backbone_weights`` records what was asked for.
        weights (str | PathLike): A checkpoint, or ``'none'`` for random weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config's model has no backbone.
    """
    weights = os.fspath(weights)
    if weights != 'none' and not Path(weights).expanduser().is_file():
        raise FileNotFoundError(
            f"There is no file {weights} to read the backbone's weights from. "
            'Give a checkpoint, or `none` for random weights.'
        )
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise ValueError(
            f'Expected a model with a backbone, but {cfg.model.type} has none whose '
            'weights could be replaced.'
        )
    backbone.pop('init_cfg', None)
    cfg.model.pop('pretrained', None)
    if 'pretrained' in backbone:
        # timm's models download when they are built.
        backbone.pretrained = False
    cfg.backbone_weights = weights


def add_hooks(cfg: Config, **hooks: dict) -> None:
    """Add hooks, by names under which a config may replace them, also with None.

    Args:
        cfg (Config): Changed in place.
        **hooks (dict): The hooks' configs.
    """
    # MMEngine takes None for its own hooks only.
    cfg.default_hooks = {
        name: hook
        for name, hook in (hooks | dict(cfg.get('default_hooks') or {})).items()
        if name not in hooks or hook is not None
    }


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config asks for, and the folders that it writes to.

    Raises:
        OSError: If a folder cannot be made.
    """
    for folder, option in written_folders(cfg).items():
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise OSError(
                f'Folder {folder} cannot be made ({error.strerror}): name another with `{option}`.'
            ) from error
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def written_folders(cfg: Config) -> dict[str, str]:
    """The folders that a run writes to, and the options that name them."""
    loops = [cfg.get(name) or {} for name in ('train_cfg', 'val_cfg', 'test_cfg')]
    caches = [loop.get('cache') or {} for loop in loops]
    folders = {cache['cache_dir']: '--cache-dir' for cache in caches if 'cache_dir' in cache}
    return folders | {cfg.work_dir: '--work-dir'}
