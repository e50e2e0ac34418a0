"""What happens without a usable stack."""

import pytest

from mhc_plugin import stack


def test_passes_here():
    stack.check_stack()


@pytest.mark.parametrize('module', ['torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain'])
def test_missing_package_is_one_error_that_says_what_to_install(monkeypatch, module):

    def import_module(name):
        if name == module:
            raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(stack, 'import_module', import_module)
    with pytest.raises(ImportError, match=f'needs {module}.*No module named') as caught:
        stack.check_stack()
    assert 'pip install "mhc_plugin[openmmlab]"' in str(caught.value)
    assert 'pip install "mhc_plugin[onedl]"' in str(caught.value)


def test_opencv_without_the_libraries_of_a_desktop(monkeypatch):

    def import_module(name):
        if name == 'cv2':
            raise ImportError('libxcb.so.1: cannot open shared object file: No such file')

    monkeypatch.setattr(stack, 'import_module', import_module)
    with pytest.raises(ImportError, match=r'OpenCV cannot be loaded.*: libxcb\.so\.1') as caught:
        stack.check_stack()
    # Both ways out, and not the advice to install again what is there.
    assert '`apt-get install libxcb1 ' in str(caught.value)
    assert 'pip uninstall -y opencv-python && pip install' in str(caught.value)
    assert 'openmmlab' not in str(caught.value)


def test_torchvision_of_another_torch(monkeypatch):

    def import_module(name):
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr(stack, 'import_module', import_module)
    with pytest.raises(ImportError, match=r'nms does not exist.*come from the same source'):
        stack.check_stack()


@pytest.mark.parametrize(
    ('released', 'fork'), [('mmengine', 'onedl-mmengine'), ('mmcv-lite', 'onedl-mmcv')]
)
def test_both_sets_side_by_side(monkeypatch, released, fork):
    monkeypatch.setattr(stack, '_is_distribution', lambda name: name in (released, fork))
    with pytest.raises(ImportError, match=f'Both {released} and {fork}'):
        stack.check_stack()


def test_distributions_are_found_by_name():
    assert stack._is_distribution('torch')
    assert not stack._is_distribution('a-package-of-nobody')
