"""What the pages say can be done: links lead somewhere, commands are taken by the tools."""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Stand in for the programs: each call is written down, a word a line, and does nothing.
STUBS = '\n'.join(
    f'{name}() {{ printf "%s\\n" {name} "$@" "" >>"$CALLS"; }}'
    for name in ('python', 'python3', 'pip', 'bash', 'pre-commit')
)


def calls_of(block: str, tmp_path: Path) -> list[list[str]]:
    """Run a block of shell code with stand-ins; give the words of every call."""
    calls = tmp_path / 'calls'
    calls.write_text('')
    script = f'set -eu\n{STUBS}\n{block.replace(". .venv/bin/activate", "true")}'
    subprocess.run(
        ['/bin/bash', '-c', script], check=True, cwd=ROOT, env=dict(os.environ, CALLS=str(calls))
    )
    return [call.split('\n') for call in calls.read_text().split('\n\n') if call.strip()]


def blocks():
    for page in PAGES:
        for i, block in enumerate(re.findall(r'```bash\n(.*?)```', page.read_text(), re.DOTALL)):
            if '.ci/run' in block:
                block = block.replace('.ci/run', 'bash .ci/run')
            yield pytest.param(page, block, id=f'{page.name}-{i}')


class Taken(Exception):
    """A parser has taken its arguments."""


@pytest.fixture
def tool(monkeypatch):
    """Give a tool its arguments, up to what its parser says; the tool itself does not run."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise Taken

    def call(words: list[str]) -> None:
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        monkeypatch.setattr(sys, 'argv', words)
        monkeypatch.setattr(sys, 'path', [*sys.path])
        try:
            runpy.run_path(words[0], run_name='__main__')
        except Taken:
            return
        except SystemExit as error:
            if error.code:
                pytest.fail(f'not taken: {shlex.join(words)}')
        finally:
            monkeypatch.undo()

    return call


@pytest.mark.parametrize(('page', 'block'), blocks())
def test_commands_are_taken(page, block, tool, tmp_path, monkeypatch):
    calls = calls_of(block, tmp_path)
    assert calls
    for program, *words in calls:
        for word in words:
            if word.startswith(('configs/', 'tools/', 'tests/', 'resources/')):
                assert (ROOT / word).exists(), f'{page.name}: {word} is not there'
        if program == 'python' and words[0].startswith('tools/'):
            monkeypatch.chdir(ROOT)
            tool(words)


@pytest.mark.parametrize('page', [*PAGES, ROOT / 'CHANGELOG.md'], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
        if not target.startswith('http'):
            assert (page.parent / target).exists(), f'{page.name} links {target}'
