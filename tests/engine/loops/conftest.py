"""Runners without what takes them a second each: a look at the machine, and a pretty config."""
import mmengine.config.config
import mmengine.runner.runner
import pytest


@pytest.fixture(autouse=True)
def quick_runners(monkeypatch):
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    monkeypatch.setattr(mmengine.config.config, 'FormatCode', lambda text, **kwargs: (text, True))
