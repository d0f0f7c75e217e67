"""Stores of both kinds, as the store's own tests have them."""

from tests.blocks.store.conftest import bucket_url, connect, keys, s3

__all__ = ["bucket_url", "connect", "keys", "s3"]
