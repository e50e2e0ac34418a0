import logging

import pytest
from mmengine.logging import MessageHub, MMLogger
from rich.table import Table

from mhc_plugin.utils.logs import log_table, table_text


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


def test_table_is_plain_text_in_the_log(log, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    table = Table('class', title='Title')
    table.add_row('cat')
    log_table(table)
    text = log()
    assert 'cat' in text
    assert 'Title' in text
    assert '\x1b' not in text


def test_nothing_of_a_table_is_cut_off():
    table = Table('class')
    table.add_row('a' * 300)
    assert 'a' * 300 in table_text(table)
