"""The store: content-addressed values that survive kill -9, full disks and two runs at once.

Every value lies under a key made of its full resolved spec and a fingerprint of the code that
made it, with the spec beside it and checksums of every file.
"""

from terrarium.store.checkpoints import load_checkpoint, save_checkpoint
from terrarium.store.content import Entry, Store, StoreEvent, StoreSummary
from terrarium.store.differences import difference

__all__ = [
    "Entry",
    "Store",
    "StoreEvent",
    "StoreSummary",
    "difference",
    "load_checkpoint",
    "save_checkpoint",
]
