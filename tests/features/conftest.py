"""Images, and quick runs."""

from quick_cache_runs import images, no_flushing, quick_runners  # noqa: F401
