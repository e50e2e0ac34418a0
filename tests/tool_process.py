"""Tools in processes of their own, forked from one that has imported what takes seconds."""

import gc
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.distributed as dist
import torch.multiprocessing as mp

# A fork of this server starts as a fresh interpreter that has imported these would: of what the
# tests have changed or run before it knows nothing.
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['mhc_plugin.apis', 'mhc_plugin.cli', 'timm'])
# Seconds after which processes that are waited for are ended.
LONGEST = 300


class ToolProcess:
    """``python SCRIPT ARGS...``, started.

    Args:
        command (Sequence): The script and its arguments.
        cwd (Path): Folder to run in.
        env (dict): The whole environment.
    """

    def __init__(self, *command, cwd, env):
        self._folder = TemporaryDirectory()
        self._out, self._err = (Path(self._folder.name) / name for name in ('out', 'err'))
        command = [str(word) for word in command]
        self.process = SERVER.Process(
            target=_run, args=(command, str(cwd), dict(env), str(self._out), str(self._err))
        )
        self.process.start()

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal that ended it."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float | None = None) -> int | None:
        self.process.join(seconds)
        return self.returncode


def _run(command, cwd, env, out, err):
    gc.freeze()
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = command
    sys.path[:0] = [
        str(Path(command[0]).parent),
        *filter(None, env.get('PYTHONPATH', '').split(os.pathsep)),
    ]
    runpy.run_path(command[0], run_name='__main__')


def torchrun(number: int, *command, cwd, env) -> list[ToolProcess]:
    """Run a script in several processes, with what torchrun tells them.

    Those that take too long are killed, so that their ``returncode`` says so.
    """
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [
        ToolProcess(
            *command,
            cwd=cwd,
            env=dict(
                env,
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=str(port),
                WORLD_SIZE=str(number),
                LOCAL_WORLD_SIZE=str(number),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            ),
        )
        for rank in range(number)
    ]
    for process in processes:
        if process.wait(LONGEST) is None:
            process.kill()
    return processes


def spawn(function, args: tuple, number: int) -> None:
    """Call ``function(rank, *args)`` in several processes, a group of gloo.

    Raises:
        mp.ProcessRaisedException: With what one of them raised.
        TimeoutError: If they wait for one another too long.
    """
    with TemporaryDirectory() as folder:
        running = mp.start_processes(
            _in_group,
            (function, args, number, folder),
            nprocs=number,
            join=False,
            start_method='forkserver',
        )
        end = time.monotonic() + LONGEST
        # It also answers where one of them has ended.
        while not running.join(max(end - time.monotonic(), 0)):
            if time.monotonic() >= end:
                for process in running.processes:
                    process.kill()
                raise TimeoutError(f'{function.__name__} took more than {LONGEST} s')


def _in_group(rank, function, args, number, folder):
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=number)
    function(rank, *args)
    # The group ends with the process: before torch 2.8 one that is destroyed keeps the GIL while it
    # waits for its threads, one of which may need it to let go of the last tensor
    # (pytorch/pytorch#154976).
    dist.barrier()
