"""Processes that wait for one another, and fail together."""

import pickle
import time

import pytest
import tool_process
from tool_process import spawn

from mhc_plugin.features.processes import Processes


def fail(text):
    raise ValueError(text)


def in_each(rank, folder):
    processes, notes = Processes(), []
    notes.append(processes.from_main(lambda: ('from', rank)))
    processes.each(lambda: notes.append(('each', rank)))
    with pytest.raises(ValueError, match='of 0'):
        processes.from_main(lambda: fail(f'of {rank}'))
    for failing in range(2):
        with pytest.raises(ValueError, match=f'of {failing}'):
            processes.each(lambda failing=failing: fail(f'of {rank}') if rank == failing else None)
    with open(f'{folder}/{rank}.pkl', 'wb') as file:
        pickle.dump((processes.rank, processes.number, processes.is_main, notes), file)


def test_two_processes(tmp_path):
    spawn(in_each, (str(tmp_path),), 2)
    seen = [pickle.loads((tmp_path / f'{rank}.pkl').read_bytes()) for rank in range(2)]
    assert seen[0] == (0, 2, True, [('from', 0), ('each', 0)])
    assert seen[1] == (1, 2, False, [('from', 0), ('each', 1)])


def test_one_process():
    processes, notes = Processes(), []
    assert processes.from_main(lambda: 3) == 3
    processes.each(lambda: notes.append(1))
    assert notes == [1]
    with pytest.raises(KeyError):
        processes.each(lambda: {}[0])
    with pytest.raises(KeyError):
        processes.from_main(lambda: {}[0])


def wait_in_one(rank):
    time.sleep(1000 * rank)


def test_processes_of_tests_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(tool_process, 'LONGEST', 1)
    with pytest.raises(TimeoutError, match='wait_in_one took more than 1 s'):
        spawn(wait_in_one, (), 2)
