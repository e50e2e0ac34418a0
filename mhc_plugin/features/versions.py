"""Which version of the code a class or function is: of its library, or of its source files."""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

OWN_PACKAGE = __name__.partition('.')[0]
INSTALLED = {'site-packages', 'dist-packages'}
STANDARD_LIBRARY = Path(sysconfig.get_path('stdlib')).resolve()


class UndescribableError(Exception):
    """Something has no description that another run could compare with; the text says what."""


def qualified_name(code: type | Callable) -> str:
    """``module.name`` of a class or function, by which any run can import it.

    Raises:
        UndescribableError: If it is defined in a script, a notebook or a function.
    """
    module, name = getattr(code, '__module__', None), getattr(code, '__qualname__', None)
    if module is None or name is None:
        raise UndescribableError(f'{code!r} has no name')
    if module == '__main__':
        raise UndescribableError(f'{name} is defined in a script or notebook, not in a module')
    found = sys.modules.get(module)
    for part in name.split('.'):
        found = getattr(found, part, None)
    if found is not code:
        raise UndescribableError(f'{module}.{name} cannot be imported by this name')
    return f'{module}.{name}'


def code_version(code: type | Callable) -> dict:
    """Version of the code behind a class or function.

    That of an installed library is the library's version. That of other code, this package
    included, is a hash of the module's source and, since a function that is called may change as
    well, of all such modules that it takes classes, functions or modules from.

    Raises:
        UndescribableError: If it cannot be imported by its name, or has no source.
    """
    module = qualified_name(code) and sys.modules[code.__module__]
    if is_library(module):
        return library_version(module.__name__.partition('.')[0])
    return dict(source=_hash_sources(module.__name__))


def library_version(package: str) -> dict:
    """Name and version of an installed package; the name alone for Python's own modules."""
    version = getattr(sys.modules.get(package), '__version__', None)
    if version is None:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = ''
    return dict(library=package, version=str(version))


def is_library(module: ModuleType) -> bool:
    """Whether a module is Python's own or was installed by a package manager."""
    package = module.__name__.partition('.')[0]
    if package == OWN_PACKAGE:
        return False
    # Built-in parts of a compiled library have no file of their own.
    file = getattr(module, '__file__', None) or getattr(sys.modules[package], '__file__', None)
    if file is None:
        return package in sys.builtin_module_names
    path = Path(file).resolve()
    return bool(INSTALLED & set(path.parts)) or STANDARD_LIBRARY in path.parents


def is_known_code(module: ModuleType) -> bool:
    """Whether a module is this package's, or a library's."""
    return module.__name__.partition('.')[0] == OWN_PACKAGE or is_library(module)


@cache
def _hash_sources(module: str) -> str:
    digest = hashlib.sha256()
    for name in sorted(_modules_behind(module)):
        try:
            source = inspect.getsource(sys.modules[name])
        except (OSError, TypeError) as error:
            raise UndescribableError(f'module {name} has no source file') from error
        digest.update(f'{name}\n{source}\n'.encode())
    return digest.hexdigest()


def _modules_behind(module: str) -> set[str]:
    found, ahead = set(), [module]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead.extend(_own_modules_used(sys.modules[name]))
    return found


def _own_modules_used(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        if isinstance(value, ModuleType):
            name = value.__name__
        elif inspect.isclass(value) or inspect.isroutine(value):
            name = value.__module__
        else:
            continue
        used = sys.modules.get(name)
        if used is not None and name != '__main__' and not is_library(used):
            yield name
