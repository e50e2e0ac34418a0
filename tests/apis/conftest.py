"""A config small enough to be trained and tested in seconds."""

from tiny_configs import tiny_cfg, tiny_checkpoint, tiny_model  # noqa: F401
