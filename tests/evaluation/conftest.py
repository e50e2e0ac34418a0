import logging

import pytest
from mmengine.logging import MessageHub, MMLogger


@pytest.fixture
def log(tmp_path):
    """Make a logger of its own the current one; calling the fixture's value gives its text."""
    name, path = 'test_evaluation', tmp_path / 'metrics.log'
    logger = MMLogger.get_instance(name, log_file=str(path))
    MessageHub.get_instance(name)
    yield path.read_text
    logging.Logger.manager.loggerDict.pop(name, None)
    MMLogger._instance_dict.pop(name)
    MessageHub._instance_dict.pop(name)
    for handler in logger.handlers:
        handler.close()
