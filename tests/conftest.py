"""Fixtures that several rooms share, and how the suite runs: in parallel, one thread each."""

import gc
import os
from pathlib import Path

# Before anything imports torch: several processes with a thread per core each are slower than one.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

# What the oldest and the newest versions have to pass as well, in minutes: `-m bounds`.
HERE = Path(__file__).parent
BOUNDS = [
    HERE / name
    for name in (
        'test_compat.py',
        'engine/loops',
        'evaluation',
        'functional',
        'integration/test_own_config.py',
        'integration/test_two_processes.py',
        'models/heads/test_multi_heads.py',
        'models/losses',
    )
]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The whole suite runs on all cores, tests chosen by path in one process."""
    if config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return 0
    return min(len(os.sched_getaffinity(0)), 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = [str(path.relative_to(HERE)) for path in BOUNDS if not path.exists()]
    if missing:
        raise pytest.UsageError(f'tests/conftest.py names tests that are not there: {missing}')
    for item in items:
        if any(item.path.is_relative_to(path) for path in BOUNDS):
            item.add_marker('bounds')


def pytest_collection_finish() -> None:
    # MMEngine collects garbage after every data set that it reads: modules need no look.
    gc.freeze()


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    """Registries look in MMPretrain's scope, whatever scope a runner of another test has set."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def data_root() -> Path:
    """Root of the development data; a test that asks for it is marked ``real_data``."""
    root = os.environ.get('MHC_DATA_ROOT')
    if root is None:
        default = Path(__file__).parents[2] / 'shared' / 'data'
        root = default if default.is_dir() else None
    if root is None or not Path(root).is_dir():
        pytest.skip('needs the development data: set MHC_DATA_ROOT')
    return Path(root).resolve()


@pytest.fixture
def make_image():
    """Write an RGB image of seeded noise and give its path."""

    def make(path: Path, size: tuple[int, int] = (32, 24), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


def pytest_runtest_setup(item):
    """Skip a test that needs a GPU where there is none."""
    if item.get_closest_marker('cuda') and not torch.cuda.is_available():
        pytest.skip('needs a GPU')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test that meets a missing optional package, with the sentence that names its extra.

    An error of a package that is there, such as a name that it has no more, is a failure.
    """
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if 'pip install "mhc_plugin[' not in str(error):
            raise
        pytest.skip(str(error))
