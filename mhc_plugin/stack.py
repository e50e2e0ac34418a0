"""The packages that this one stands on: whether they are there and can be used together."""

from importlib import import_module, metadata

# Distributions that write the same files.
FORKS = dict(mmengine='onedl-mmengine', mmcv='onedl-mmcv', mmpretrain='onedl-mmpretrain')
RELEASED = dict(
    mmengine=('mmengine', 'mmengine-lite'),
    mmcv=('mmcv', 'mmcv-lite', 'mmcv-full'),
    mmpretrain=('mmpretrain',),
)
HOW_TO_INSTALL = (
    'Install `pip install "mhc_plugin[openmmlab]"` or, for the maintained forks, '
    '`pip install "mhc_plugin[onedl]"`, in a fresh environment.'
)
# opencv-python is linked to libraries of a graphical desktop: these of Debian's and Ubuntu's
# packages, beyond what every installation has.
HOW_TO_GET_OPENCV = (
    'Servers and containers often lack what `opencv-python` is linked to. Either install it, '
    '`apt-get install libxcb1 libgl1 libglib2.0-0` on Debian and Ubuntu; or put the OpenCV that '
    'needs no desktop in its place, `pip uninstall -y opencv-python && pip install '
    '--force-reinstall --no-deps opencv-python-headless`, after which a `pip install` of this '
    'package would bring the other one back.'
)


def check_stack() -> None:
    """Make sure that the packages below this one can be used together.

    Raises:
        ImportError: If one is missing or fails to import, torch and torchvision do not fit each
            other, OpenCV lacks a library of the system, or the released packages and their forks
            are installed side by side.
    """
    for module, fork in FORKS.items():
        released = [name for name in RELEASED[module] if _is_distribution(name)]
        if released and _is_distribution(fork):
            raise ImportError(
                f'Both {released[0]} and {fork} are installed and overwrite each '
                f"other's files. {HOW_TO_INSTALL}"
            )
    for module in ('torch', 'torchvision', 'cv2', *FORKS):
        try:
            import_module(module)
        except Exception as error:
            if module == 'cv2' and '.so' in str(error):
                raise ImportError(
                    f'OpenCV cannot be loaded on this machine: {error}. {HOW_TO_GET_OPENCV}'
                ) from None  # It is quoted whole.
            hint = (
                ' torch and torchvision must come from the same source and fit each other.'
                if module == 'torchvision'
                else ''
            )
            raise ImportError(
                f'mhc_plugin needs {module}, but importing it failed with '
                f'"{type(error).__name__}: {error}".{hint} {HOW_TO_INSTALL}'
            ) from error


def _is_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
