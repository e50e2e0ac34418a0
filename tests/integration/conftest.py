"""Runs of ``tiny.py``."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from mmengine.runner.checkpoint import _load_checkpoint
from tool_process import ToolProcess

from mhc_plugin import apis

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TINY = HERE / 'tiny.py'


@pytest.fixture(scope='session')
def tiny_config():
    """Load the config, with options."""

    def load(**options):
        # MMEngine's loggers and message hubs are shared by runs of one name in one second.
        options.setdefault('experiment_name', uuid.uuid4().hex)
        return apis.load_config(
            TINY, {name.replace('__', '.'): value for name, value in options.items()}
        )

    return load


@pytest.fixture(scope='session')
def state_dict():
    """The weights of a checkpoint."""

    def load(path):
        return _load_checkpoint(str(path), map_location='cpu')['state_dict']

    return load


@pytest.fixture(scope='session')
def environment():
    """Environment variables of a process that runs a tool."""
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(ROOT), str(HERE)]),
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        OMP_NUM_THREADS='1',
    )


@pytest.fixture
def run(environment, tmp_path):
    """Run a command in ``tmp_path``."""

    def run_command(*command):
        return subprocess.run(
            list(map(str, command)), env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    return run_command


@pytest.fixture
def run_tool(environment, tmp_path):
    """Run a tool in a process of its own, in ``tmp_path``."""

    def run_command(*command):
        process = ToolProcess(*command, cwd=tmp_path, env=environment)
        process.wait()
        return process

    return run_command


@pytest.fixture(scope='session')
def log_of():
    """The text of all logs of a folder."""

    def read(work_dir):
        return '\n'.join(path.read_text() for path in sorted(Path(work_dir).rglob('*.log')))

    return read
