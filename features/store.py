"""`features.collection.store` under the name that it had first."""

from features.collection.store import FeatureStore, StoreError

__all__ = ["FeatureStore", "StoreError"]
