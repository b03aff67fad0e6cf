from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robustbench_local.core.draws import Draws

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(z: int) -> int:
    """The finaliser of splitmix64 in Python's own integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def signed(z: int) -> int:
    return z - WORD if z >= WORD // 2 else z


def reference_bits(
    seed: int,
    sample: int,
    place: int,
    streams: tuple[()] | tuple[str, int] | tuple[str] = (),
    number: int | None = None,
) -> int:
    """What the 64 bits at one address must be, from the definition."""
    base = word(f"seed:{seed}")
    for name in streams:
        base = word(f"{signed(base)}:{name}")
    key = splitmix(splitmix(base) ^ (sample * GOLDEN % WORD))
    if number is not None:
        key = splitmix(key ^ (number * 0xBF58476D1CE4E5B9 % WORD))
    return splitmix((key + (place + 1) * GOLDEN) % WORD)


def ids(n: int) -> Tensor:
    return torch.arange(n)


# what the numbers are, for ever


def test_the_mixer_is_splitmix64() -> None:
    # the first outputs of splitmix64 for seed 1234567, as its authors' C program prints them
    state, outputs = 1234567, []
    for _ in range(3):
        state = (state + GOLDEN) % WORD
        outputs.append(splitmix(state))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, -3, 2**40])
def test_bits_are_those_of_the_definition(seed: int) -> None:
    samples = torch.tensor([0, 1, 59_999, 2**62, -1])
    draws = Draws(seed, samples)
    for streams in ((), ("attack",), ("attack", 3)):
        mine = draws
        for name in streams:
            mine = mine.stream(name)
        found = mine._bits((2, 3)).view(5, 6).tolist() + mine._bits((1,)).tolist()  # the counter goes on
        for row, sample in enumerate(samples.tolist()):
            assert found[row] == [signed(reference_bits(seed, sample, place, streams)) for place in range(6)]
            assert found[5 + row] == [signed(reference_bits(seed, sample, 6, streams))]


def test_numbered_bits_are_those_of_the_definition() -> None:
    numbers = torch.tensor([0, 5, 10**12])
    found = Draws(7, ids(3)).with_counter(numbers)._bits((2,)).tolist()
    for row, number in enumerate(numbers.tolist()):
        expected = [reference_bits(7, row, place, ("numbered",), number) for place in range(2)]
        assert found[row] == [signed(bits) for bits in expected]


def test_some_numbers_are_pinned() -> None:
    """A change of these changes every published row: give such a change a new schema version."""
    draws = Draws(0, torch.tensor([0, 1, 17]))
    assert draws.uniform().tolist() == PINNED["uniform"]
    assert draws.integers(1000, 2).tolist() == PINNED["integers"]
    assert draws.normal().tolist() == pytest.approx(PINNED["normal"], abs=1e-6)
    assert draws.stream("attack").uniform().tolist() == PINNED["stream"]


PINNED = {
    "uniform": [0.68123859167099, 0.02301466464996338, 0.8470063805580139],
    "integers": [[214, 953], [51, 617], [782, 363]],
    "normal": [0.3886396, 0.2095629, -0.0886201],
    "stream": [0.4520775079727173, 0.6300811767578125, 0.7501984238624573],
}


# addressed by sample, never by place in a batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_order_and_compaction_change_nothing(dtype: torch.dtype) -> None:
    def numbers(draws: Draws) -> tuple[Draws, Draws]:
        draws.uniform(3)  # the counter is somewhere
        return draws.stream("a"), draws

    whole_stream, whole = numbers(Draws(5, ids(50), dtype=dtype))
    for rows in (torch.tensor([3]), torch.tensor([40, 2, 17]), torch.randperm(50), ids(50) % 3 == 0, slice(10, 20)):
        stream, draws = numbers(Draws(5, ids(50)[rows], dtype=dtype))
        for kind in ("uniform", "normal"):
            expected = getattr(whole[:], kind)(2, 2)[rows]
            assert torch.equal(getattr(draws[:], kind)(2, 2), expected)
            assert torch.equal(getattr(whole[rows], kind)(2, 2), expected)  # the rows still robust
        assert torch.equal(stream[:].uniform(), whole_stream[:].uniform()[rows])
    assert torch.equal(whole.with_ids(torch.tensor([9, 9]))[:].uniform(), whole[:].uniform()[[9, 9]])


def test_rows_of_a_numbered_stream_keep_their_numbers() -> None:
    numbers = torch.tensor([4, 0, 9, 4])
    whole = Draws(1, ids(4)).with_counter(numbers)
    rows = torch.tensor([2, 0])
    assert torch.equal(whole[rows].uniform(5), whole[:].uniform(5)[rows])
    assert torch.equal(whole.stream("a")[rows].uniform(5), whole.stream("a").uniform(5)[rows])


def test_numbers_distinguish_samples_and_draws() -> None:
    draws = Draws(1, torch.zeros(1000, dtype=torch.int64))
    assert len(draws.with_counter(ids(1000)).uniform(2).unique(dim=0)) == 1000
    assert len(draws.with_counter(torch.zeros(1000, dtype=torch.int64)).uniform(2).unique(dim=0)) == 1


def test_numbers_within_numbers_keep_the_outer_one() -> None:
    draws, inner = Draws(1, torch.zeros(100, dtype=torch.int64)), torch.full((100,), 7)
    found = draws.with_counter(ids(100)).with_counter(inner).uniform(2)
    assert len(found.unique(dim=0)) == 100


def test_a_copy_counts_on_its_own_and_a_stream_begins_at_its_beginning() -> None:
    draws = Draws(2, ids(4))
    copy = draws[:]
    first = draws.uniform(3)
    assert torch.equal(copy.uniform(3), first) and not torch.equal(draws.uniform(3), first)
    assert torch.equal(draws.stream("a").uniform(), Draws(2, ids(4)).stream("a").uniform())
    assert torch.equal(draws.stream(1).uniform(), draws.stream("1").uniform())


def test_one_call_or_several_give_the_same_numbers() -> None:
    once, often = Draws(2, ids(4)), Draws(2, ids(4))
    assert torch.equal(once.uniform(6), torch.cat([often.uniform(2), often.uniform(1), often.uniform(3)], 1))


@pytest.mark.parametrize("block", [1, 40, 100])
def test_numbers_made_a_block_at_a_time_are_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, numbers = torch.tensor([5, 2, 900, 7]), torch.tensor([3, 0, 1, 1])
    kinds: dict[str, Callable[[], Draws]] = {
        "plain": lambda: Draws(3, ids),
        "numbered": lambda: Draws(3, ids).with_counter(numbers),
        "fan": lambda: Draws(3, ids).expand(range(3)),
        "prefetch": lambda: Draws(3, ids).prefetch(range(3))[1],
        "float64": lambda: Draws(3, ids, dtype=torch.float64),
    }
    for begin in kinds.values():
        whole, parts = begin(), begin()
        for ask in ("normal", "uniform", "normal"):
            monkeypatch.setattr("robustbench_local.core.draws._BLOCK", 2**18)
            expected = getattr(whole, ask)(2, 13), whole.integers(7, 9)
            monkeypatch.setattr("robustbench_local.core.draws._BLOCK", block)
            found = getattr(parts, ask)(2, 13), parts.integers(7, 9)
            assert all(map(torch.equal, found, expected))
            assert [each.dtype for each in found] == [each.dtype for each in expected]


def test_no_samples_and_no_numbers_are_no_trouble() -> None:
    assert Draws(0, ids(0)).uniform(2, 3).shape == (0, 2, 3)
    assert Draws(0, ids(3)).normal(2, 0).shape == (3, 2, 0)
    assert Draws(0, ids(3)).integers(5).shape == (3,) and len(Draws(0, ids(3))) == 3


def test_float64_holds_the_same_uniform_numbers_as_float32() -> None:
    narrow, wide = Draws(0, ids(1000)), Draws(0, ids(1000), dtype=torch.float64)
    assert torch.equal(narrow.uniform(20).double(), wide.uniform(20))
    torch.testing.assert_close(narrow.normal(20).double(), wide.normal(20), rtol=1e-5, atol=1e-5)
    assert torch.equal(narrow.integers(7, 3), wide.integers(7, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same() -> None:
    here, there = Draws(0, ids(100)), Draws(0, ids(100).cuda())
    assert torch.equal(here.uniform(50), there.uniform(50).cpu())
    torch.testing.assert_close(here.normal(50), there.normal(50).cpu(), rtol=1e-5, atol=1e-5)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    first = Draws(0, ids(10)).normal(5)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, Draws(0, ids(10)).normal(5))
    assert torch.equal(before, torch.get_rng_state())


# as good as random


def test_uniform_is_uniform_over_samples_and_over_counters() -> None:
    draws = Draws(0, ids(200_000))
    assert stats.kstest(draws.uniform().numpy(), "uniform").pvalue > 1e-3
    along = Draws(0, ids(1)).uniform(200_000)[0].numpy()
    assert stats.kstest(along, "uniform").pvalue > 1e-3
    assert along.min() >= 0 and along.max() < 1
    both = Draws(3, ids(400)).uniform(500).flatten().numpy()
    assert stats.chisquare(np.bincount((both * 256).astype(int), minlength=256)).pvalue > 1e-3
    fine = np.bincount((both * 2**24).astype(int) % 256, minlength=256)  # the lowest bits too
    assert stats.chisquare(fine).pvalue > 1e-3


def test_every_bit_is_a_fair_coin() -> None:
    bits = Draws(0, ids(2000))._bits((50,)).flatten().numpy().view(np.uint64)
    share = [((bits >> np.uint64(place)) & np.uint64(1)).mean() for place in range(64)]
    assert max(abs(np.array(share) - 0.5)) < 5 * 0.5 / math.sqrt(100_000)


def test_neighbouring_addresses_are_independent() -> None:
    n = 100_000
    draws = Draws(0, ids(n))
    first = draws.uniform(2)
    others = {
        "counter": first[:, 1],
        "id": first[:, 0].roll(1),
        "stream": draws.stream("a").uniform(),
        "other stream": draws.stream("b").uniform(),
        "stream of the stream": draws.stream("a").stream("a").uniform(),
        "seed": Draws(1, ids(n)).uniform(),
        "number": draws.with_counter(torch.zeros(n, dtype=torch.int64)).uniform(),
        "next number": draws.with_counter(torch.ones(n, dtype=torch.int64)).uniform(),
        "stream named numbered": draws.stream("numbered").uniform(),
    }
    columns = np.stack([first[:, 0].numpy(), *(value.numpy() for value in others.values())])
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(correlation).max() < 5 / math.sqrt(n)
    for name, value in others.items():  # two-dimensional: no lattice
        table = np.histogram2d(first[:, 0].numpy(), value.numpy(), bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.flatten()).pvalue > 1e-4, name


def test_addresses_do_not_collide() -> None:
    draws = Draws(0, ids(2000))
    parts = [
        draws[:]._bits((100,)),
        draws.stream("a")._bits((100,)),
        Draws(1, ids(2000))._bits((100,)),
        *(draws.with_counter(torch.full((2000,), k))._bits((100,)) for k in range(3)),
    ]
    bits = torch.cat(parts).flatten()
    assert len(bits.unique()) == len(bits)


def test_normal_is_normal() -> None:
    value = Draws(0, ids(1000)).normal(300).double().flatten().numpy()
    assert np.isfinite(value).all() and abs(value).max() < 5.9
    assert stats.kstest(value[:200_000], "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = math.sqrt(math.prod(range(1, 2 * power, 2)))  # of x^power, at most
        assert np.mean(value**power) == pytest.approx(moment, abs=5 * spread / math.sqrt(len(value)))
    assert abs(np.corrcoef(value[:-1], value[1:])[0, 1]) < 5 / math.sqrt(len(value))


@pytest.mark.parametrize("high", [1, 2, 7, 10, 1000, 2**31])
def test_integers_are_uniform_on_their_range(high: int) -> None:
    found = Draws(0, ids(500)).integers(high, 100).flatten()
    assert found.dtype == torch.int64 and found.min() >= 0 and found.max() < high
    bins = min(high, 1000)
    counts = np.bincount((found * bins // high).numpy(), minlength=bins)
    assert bins == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 5, 64, 65])
def test_streams_made_ahead_are_the_same_streams(count: int) -> None:
    draws = Draws(3, ids(7)).stream("round")
    ahead = draws.prefetch(range(4, 9))
    assert list(ahead) == [4, 5, 6, 7, 8]
    for name in (8, 4, 6):
        mine, plain = ahead[name], draws.stream(name)
        for _ in range(2):
            assert torch.equal(mine.uniform(count), plain.uniform(count))
        assert torch.equal(mine.normal(2, 2), plain.normal(2, 2))
        assert torch.equal(mine[1:].integers(9), plain[1:].integers(9))
        assert torch.equal(mine.stream("within").uniform(3), plain.stream("within").uniform(3))
    fewer = draws.prefetch(range(2))
    assert torch.equal(fewer[0].uniform(2), draws.stream(0).uniform(2))
    assert torch.equal(fewer[1].uniform(5), draws.stream(1).uniform(5))  # more than the first one asked for
    numbered = draws.with_counter(torch.arange(7))
    assert torch.equal(numbered.prefetch([1])[1].uniform(2), numbered.stream(1).uniform(2))
