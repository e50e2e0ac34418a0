"""Tests are skipped where an optional package is missing, and fail where it has changed."""

import importlib.util
from pathlib import Path

import pytest

SENTENCE = 'The page needs Gradio: pip install "mhc_plugin[page]".'


@pytest.fixture
def is_missing():
    spec = importlib.util.spec_from_file_location('top', Path(__file__).with_name('conftest.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.is_missing


def raised(statement):
    """What a module of ours raises where the statement fails."""
    try:
        try:
            exec(statement)
        except ImportError as error:
            raise ImportError(SENTENCE) from error
    except ImportError as error:
        return error
    pytest.fail('nothing was raised')


def test_a_package_that_is_not_there(is_missing):
    assert is_missing(raised('import a_package_of_nobody.module'))


@pytest.mark.parametrize(
    'statement',
    [
        # A function and a module that an installed package had.
        'from numpy import a_function_of_old',
        'import numpy.a_module_of_old',
        'raise ImportError("libxcb.so.1: cannot open shared object file")',
    ],
)
def test_a_package_that_has_changed(is_missing, statement):
    assert not is_missing(raised(statement))


def test_a_sentence_without_a_cause(is_missing):
    assert not is_missing(ImportError(SENTENCE))
