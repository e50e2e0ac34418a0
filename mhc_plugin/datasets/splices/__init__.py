"""Images put together from tiles of single-label images, and where the tiles come from."""
