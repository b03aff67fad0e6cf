"""Randomness addressed by (seed, sample id, stream, counter): the same numbers in any batch, on any device.

A counter-based generator in the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"): every
number is a hash of its address, so nothing depends on batch size, order, compaction or worker.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from robustbench_local.core.blocks import blocks

# splitmix64 (Steele, Lea and Flood 2014), in two's complement because torch has no full set of uint64 operations
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB

_BLOCK = 2**18  # numbers at a time on a CPU
FEW = 64  # numbers per sample and stream, up to which several streams are worth drawing at once


def _mix(z: Tensor) -> Tensor:
    z = (z >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(z).mul_(_MIX_1)  # the masks make torch's shifts logical
    z = (z >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(z).mul_(_MIX_2)
    return (z >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(z)


def _mixed(word: int) -> int:
    """_mix of one signed word, on the host."""
    z = word % 2**64
    z = (z ^ (z >> 30)) * (_MIX_1 % 2**64) % 2**64
    z = (z ^ (z >> 27)) * (_MIX_2 % 2**64) % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


class Draws:
    """A stream of random numbers per sample: ids (N,) int64; every method returns (N, *shape) on the ids' device.

    Each call moves the stream's counter on, so successive calls differ; `stream(name)` starts an independent stream
    at counter zero, and `draws[rows]` is the same stream for fewer samples.
    """

    def __init__(self, seed: int, ids: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
        self.ids = ids
        self.dtype = dtype
        self._base = _word(f"seed:{seed}")  # the seed and all streams so far, one host word
        self._number: Tensor | None = None
        self._counter = 0
        self._key: Tensor | None = None  # (N,), what all numbers of a sample in this stream begin with
        self._block: tuple[int, _Block] | None = None
        self._fanned = False

    def _copy(self, ids: Tensor, base: int, number: Tensor | None, counter: int) -> Draws:
        other = object.__new__(Draws)
        other.ids, other.dtype, other._base, other._number, other._counter = ids, self.dtype, base, number, counter
        other._key, other._block, other._fanned = None, None, False
        return other

    def stream(self, name: str | int) -> Draws:
        """An independent stream, at its beginning. The same name gives the same stream."""
        return self._copy(self.ids, _word(f"{self._base}:{name}"), self._number, 0)

    def clone(self) -> Draws:
        """The same stream with ids of its own, for hands that may write into them."""
        other = self._copy(self.ids.clone(), self._base, self._number, self._counter)
        other._key, other._fanned = self._key, self._fanned
        return other

    def prefetch(self, names: Iterable[int]) -> dict[int, Draws]:
        """{name: stream(name)}. The first few numbers of all of them are made at once, which is cheaper for each."""
        streams = {name: self.stream(name) for name in names}
        if self._number is None:
            block = _Block(self.ids, [each._base for each in streams.values()])
            for place, each in enumerate(streams.values()):
                each._block = place, block
        return streams

    def expand(self, names: Iterable[int]) -> Draws:
        """stream(name) of all P names as (N * P) samples, those of one sample in a row. It has no streams itself."""
        words = torch.tensor([_mixed(_word(f"{self._base}:{name}")) for name in names], device=self.ids.device)
        key = _mix((self.ids * _GOLDEN)[:, None].bitwise_xor(words))
        if self._number is not None:
            key = _mix((self._number * _MIX_1)[:, None].bitwise_xor(key))
        fan = self._copy(self.ids.repeat_interleave(len(words)), self._base, None, 0)
        fan._key, fan._fanned = key.flatten(), True
        return fan

    def with_counter(self, number: Tensor) -> Draws:
        """An independent stream per sample and number (N,) int64, for samples that have come unequally far."""
        if self._number is not None:
            number = _mix(self._number) + number  # numbers within numbers
        return self._copy(self.ids, _word(f"{self._base}:numbered"), number, 0)

    def with_ids(self, ids: Tensor) -> Draws:
        """The same stream for other samples."""
        return self._copy(ids, self._base, None, self._counter)

    def __getitem__(self, rows: Tensor | slice) -> Draws:
        """The same stream for the samples that rows select (indices, a mask or a slice)."""
        number = None if self._number is None else self._number[rows]
        part = self._copy(self.ids[rows], self._base, number, self._counter)
        if self._fanned and self._key is not None:
            part._key, part._fanned = self._key[rows], True
        return part

    def __len__(self) -> int:
        return len(self.ids)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        """(N, *shape) int64, all 64 bits random; the caller's own."""
        count = math.prod(shape)
        if self._block is not None and self._counter == 0 and count <= FEW:
            self._counter = count
            at, block = self._block
            return block.bits(count)[:, at].clone().view(len(self), *shape)
        if self._key is None:
            self._key = _mix((self.ids * _GOLDEN).bitwise_xor_(_mixed(self._base)))
            if self._number is not None:
                self._key = _mix((self._number * _MIX_1).bitwise_xor_(self._key))
        place = torch.arange(self._counter + 1, self._counter + count + 1, device=self.ids.device)
        self._counter += count
        return _mix(self._key[:, None] + place.mul_(_GOLDEN)).view(len(self), *shape)

    def _made(self, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[Tensor], Tensor]) -> Tensor:
        """make(_bits(shape)), on a CPU a block of samples at a time: many numbers take half as long in its cache."""
        count = math.prod(shape)
        parts = blocks(len(self), count, _BLOCK, self.ids.device)
        if len(parts) <= 1:
            return make(self._bits(shape))
        made = torch.empty(len(self), *shape, dtype=dtype)
        for rows in parts:
            made[rows] = make(self[rows]._bits(shape))
        self._counter += count
        return made

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) in [0, 1), 24 random bits each, so that float32 and float64 hold the same number."""

        def make(bits: Tensor) -> Tensor:
            return bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF).to(self.dtype).mul_(2.0**-24)

        return self._made(shape, self.dtype, make)

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape), standard normal (Box and Muller 1958; the tail ends at 5.8)."""

        def make(bits: Tensor) -> Tensor:  # in place: on a CPU 2/3 of the time
            radius = (bits >> 40).bitwise_and_(0xFFFFFF).add_(1).to(self.dtype).mul_(2.0**-24).log_().mul_(-2).sqrt_()
            return bits.bitwise_and_(0xFFFFFF).to(self.dtype).mul_(2 * math.pi * 2.0**-24).cos_().mul_(radius)

        return self._made(shape, self.dtype, make)

    def integers(self, high: int, *shape: int) -> Tensor:
        """(N, *shape) int64, uniform on 0 .. high-1 (high up to 2^31)."""

        def make(bits: Tensor) -> Tensor:
            return bits.bitwise_right_shift_(32).bitwise_and_(0x7FFFFFFF).mul_(high).bitwise_right_shift_(31)

        return self._made(shape, torch.int64, make)


class _Block:
    """The numbers with which some streams of the same samples (N,) begin."""

    def __init__(self, ids: Tensor, bases: list[int]) -> None:
        self._ids, self._bases = ids, bases
        self._table: Tensor | None = None

    def bits(self, count: int) -> Tensor:
        """(N, streams, count) int64, made when they are first asked for."""
        if self._table is None or self._table.shape[2] < count:
            words = torch.tensor([_mixed(base) for base in self._bases], device=self._ids.device)
            key = _mix((self._ids * _GOLDEN)[:, None].bitwise_xor(words))
            place = torch.arange(1, count + 1, device=self._ids.device).mul_(_GOLDEN)
            self._table = _mix(key[:, :, None] + place)
        return self._table[:, :, :count]
