"""Processes of tests that wait for one another do not do so for ever."""

import time

import pytest
import tool_process


def wait_in_one(rank):
    time.sleep(1000 * rank)


def test_processes_that_wait_too_long_are_ended(monkeypatch):
    monkeypatch.setattr(tool_process, 'LONGEST', 1)
    with pytest.raises(TimeoutError, match='wait_in_one took more than 1 s'):
        tool_process.spawn(wait_in_one, (), 2)
