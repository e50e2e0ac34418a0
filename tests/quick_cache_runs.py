"""Images, and runs without what takes time: looks at the machine, pretty configs, flushing."""

import mmengine.config.config
import mmengine.runner.runner
import pytest
import yapf.yapflib.yapf_api
from tiny_cache_run import make_images


@pytest.fixture(autouse=True)
def quick_runners(monkeypatch):

    def as_it_is(text, **kwargs):
        return text, True

    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    # Released MMEngine imports it when it is itself imported, the fork when it is used.
    monkeypatch.setattr(mmengine.config.config, 'FormatCode', as_it_is, raising=False)
    monkeypatch.setattr(yapf.yapflib.yapf_api, 'FormatCode', as_it_is)


@pytest.fixture
def images(tmp_path):
    return make_images(tmp_path / 'images')


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    monkeypatch.setattr('os.fsync', lambda fd: None)
