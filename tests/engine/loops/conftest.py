"""Runners without what takes them a second each: a look at the machine, and a pretty config."""
import mmengine.config.config
import mmengine.runner.runner
import pytest
import yapf.yapflib.yapf_api


@pytest.fixture(autouse=True)
def quick_runners(monkeypatch):

    def as_it_is(text, **kwargs):
        return text, True

    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    # Released MMEngine imports it when it is itself imported, the fork when it is used.
    monkeypatch.setattr(mmengine.config.config, 'FormatCode', as_it_is, raising=False)
    monkeypatch.setattr(yapf.yapflib.yapf_api, 'FormatCode', as_it_is)
