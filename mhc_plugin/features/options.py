"""Settings of the feature cache, spelt out once for loops, configs and command line."""

from dataclasses import dataclass, field
from numbers import Integral

from .store.manifest import STORAGES


def _option(default: bool | int | str, text: str, choices: tuple[str, ...] | None = None):
    return field(default=default, metadata=dict(help=text, choices=choices))


@dataclass(frozen=True)
class CacheOptions:
    """Where and how features are stored.

    Args:
        cache_dir (str): Folder of the cache. Defaults to ``'work_dirs/feature_cache'``.
        views (int): Draws of the augmentation per image of the training set; 1 is taken where the
            pipeline draws nothing. Defaults to 1.
        precision (str): What the backbone computes in, ``'fp32'`` or ``'bf16'``. bfloat16 is
            several times faster on new processors and moves features by some percent. Defaults to
            ``'fp32'``.
        storage (str): ``'fp16'`` or ``'fp32'``. Defaults to ``'fp16'``.
        store (str): ``'auto'`` stores pooled vectors where the head needs no more; ``'maps'``
            always stores maps, from which later runs get vectors. Defaults to ``'auto'``.
        trust_mtime (bool): Whether an image whose size, times and inode are as they were counts as
            unchanged. Defaults to False, which reads every image's bytes when a run starts.

    Raises:
        ValueError: If an option is none of these.
    """

    cache_dir: str = _option('work_dirs/feature_cache', 'folder of features')
    views: int = _option(1, 'draws of the augmentation per image')
    precision: str = _option(
        'fp32', 'what the backbone computes in; bf16 is faster and moves scores', ('fp32', 'bf16')
    )
    storage: str = _option('fp16', 'what features are stored in', tuple(STORAGES))
    store: str = _option(
        'auto', 'auto stores pooled vectors where the head needs no more', ('auto', 'maps')
    )
    trust_mtime: bool = _option(
        False,
        'take an image whose size and times are as they were for unchanged, without reading it',
    )

    def __post_init__(self) -> None:
        if not isinstance(self.views, Integral) or self.views < 1:
            raise ValueError(
                f'Expected argument `views` to be an int of at least 1, but got {self.views!r}.'
            )
        for name, option in self.__dataclass_fields__.items():
            choices, value = option.metadata['choices'], getattr(self, name)
            if choices is not None and value not in choices:
                raise ValueError(
                    f'Expected argument `{name}` to be one of {choices}, but got {value!r}.'
                )
