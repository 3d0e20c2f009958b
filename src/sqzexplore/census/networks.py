"""The distinct networks among the rows of a census, and how often each is spelled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..network.identity import Keys, first_of_each, network_keys
from .blocks import SPELLINGS, Block

#: Networks that are told apart in 1.6 GiB; a space may have more.
MAX_NETWORKS = 60_000_000
_FIRST_SIZE = 2**17
#: The column of a block that holds the keys of its networks.
NETWORK = "network"


class Networks:
    """The networks of all rows so far: a table of keys with open addressing, for whole blocks at a
    time."""

    def __init__(self) -> None:
        self._keys = np.zeros(_FIRST_SIZE, np.uint64)
        self._spellings = np.zeros(_FIRST_SIZE, np.uint32)
        self.count = 0

    def first(self, block: Block) -> Block:
        """The rows whose network no row before has, with their keys as column `NETWORK`.

        Raises:
            UserError: there are more networks than can be told apart.
        """
        keys = keys_of(block)
        codes, distinct, first = first_of_each(keys)
        self._grow(self.count + len(distinct))
        slots, new = self._insert(distinct)
        self._spellings[slots] += np.bincount(codes, minlength=len(distinct)).astype(np.uint32)
        self.count += int(new.sum())
        rows = np.sort(first[new])
        taken = block.take(rows)
        return Block(taken.numbers, taken.columns | {NETWORK: keys[rows]}, block.looked_at)

    def spelled(self, block: Block) -> Block:
        """The block with a column `spellings`: how many of all rows are each row's network."""
        keys = block.columns[NETWORK] if NETWORK in block.columns else keys_of(block)
        slots, new = self._insert(keys)
        assert not new.any()
        columns = block.columns | {SPELLINGS: self._spellings[slots].astype(np.int64)}
        return Block(block.numbers, columns, block.looked_at)

    def _grow(self, needed: int) -> None:
        if needed > MAX_NETWORKS:
            raise UserError(
                f"more than {MAX_NETWORKS:,} networks are kept, too many to tell which are the "
                "same; keep fewer with --where, or list every spelling with --spellings"
            )
        size = len(self._keys)
        while size < 2 * needed:
            size *= 2
        if size == len(self._keys):
            return
        keys, spellings = self._keys, self._spellings
        some = keys != 0
        self._keys, self._spellings = np.zeros(size, np.uint64), np.zeros(size, np.uint32)
        slots, _ = self._insert(keys[some])
        self._spellings[slots] = spellings[some]

    def _insert(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The slot of each key, distinct ones or known ones, and whether it is new."""
        mask = np.uint64(len(self._keys) - 1)
        slots = (keys & mask).astype(np.int64)
        new = np.zeros(len(keys), bool)
        left = np.arange(len(keys))
        while len(left):
            empty = left[self._keys[slots[left]] == 0]
            self._keys[slots[empty]] = keys[empty]
            held = self._keys[slots[left]] == keys[left]
            new[empty] |= self._keys[slots[empty]] == keys[empty]
            left = left[~held]
            slots[left] = (slots[left] + 1) & int(mask)
        return slots, new


def keys_of(block: Block) -> Keys:
    """The keys of a block's networks; none is 0, which marks a free slot."""
    return np.maximum(network_keys(block.columns, block.rows), np.uint64(1))
