"""Canonical Huffman codes of small alphabets (Huffman, 1952): the lengths alone say the code."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def code_lengths(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bits of each symbol's code word, 0 for a symbol that does not occur.

    Args:
        counts: how often each symbol occurs, by symbol. One that is alone takes one bit.
    """
    lengths = np.zeros(len(counts), dtype=np.uint8)
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (few, _, left), (more, tie, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (few + more, tie, left + right))
    return lengths


def encode(symbols: NDArray[np.integer], lengths: NDArray[np.uint8]) -> bytes:
    """The code words one behind the other, the last byte filled with zeros.

    Args:
        symbols: any shape; each has a code word.
        lengths: as `code_lengths` gives them.
    """
    symbols = symbols.ravel()
    if not len(symbols):
        return b""
    words, sizes = _words(lengths)[symbols], lengths[symbols].astype(np.int64)
    ends = np.cumsum(sizes)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    for position in range(int(sizes.max())):  # the last bit of every word, then the one before
        has = sizes > position
        bits[ends[has] - 1 - position] = (words[has] >> position) & 1
    return np.packbits(bits).tobytes()


def decode(content: bytes, count: int, lengths: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The first `count` symbols.

    Raises:
        ValueError: there are fewer, or bits that are no code word.
    """
    longest = int(lengths.max(initial=0))
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0].tolist()
    at_length = np.bincount(lengths[lengths > 0], minlength=longest + 1).tolist()
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8)).tolist()
    found = np.empty(count, dtype=np.int64)
    position = 0
    for number in range(count):
        word = first = index = 0
        for length in range(1, longest + 1):
            if position == len(bits):
                raise ValueError("the code words end too early")
            word, position = word << 1 | bits[position], position + 1
            first <<= 1
            if word - first < at_length[length]:
                found[number] = order[index + word - first]
                break
            first += at_length[length]
            index += at_length[length]
        else:
            raise ValueError("bits that are no code word")
    return found


def _words(lengths: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The code word of each symbol: shorter ones first, then by symbol, counting up."""
    words = np.zeros(len(lengths), dtype=np.int64)
    word = before = 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)).tolist():
        if length := int(lengths[symbol]):
            word <<= length - before
            words[symbol], word, before = word, word + 1, length
    return words
