"""Fixtures that several rooms share: made images and the development data."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test that meets a missing optional package, with the sentence that names its extra.

    A package that is there, but has another API or does not import, fails the test.
    """
    try:
        return (yield)
    except ImportError as error:
        if 'pip install "mhc_plugin[' not in str(error) or not is_missing(error):
            raise
        pytest.skip(str(error))


def is_missing(error: ImportError) -> bool:
    """Whether an error says that a package is not installed, or comes from one that does."""
    cause = error.__cause__
    if cause is not None:
        return isinstance(cause, ImportError) and is_missing(cause)
    return isinstance(error, ModuleNotFoundError) and not is_installed(error.name)


def is_installed(module: str | None) -> bool:
    # Of an installed package that lost a module, the package is found.
    return module is None or find_spec(module.partition('.')[0]) is not None
