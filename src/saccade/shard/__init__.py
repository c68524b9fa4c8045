"""Write a collection of clips into tar archives, in the layout of webdataset."""

from saccade.shard.command import Written, shard
from saccade.shard.config import ShardConfig

__all__ = ["ShardConfig", "Written", "shard"]
