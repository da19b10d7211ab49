"""Which shapes are compiled, and which rows share a batch: pure arithmetic on lengths.

A batch is what one device sees at once. Its rows are a function of the lengths and the bucket set alone: not of
time, threads or the number of devices (promise P3). Knows nothing of arrays or devices; imports no jax.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from batchinfer.errors import EngineError, Fault, SpecError

BUCKETS_MAX = 8
"""Lengths chosen by default: about 18 % padding on English prose. More gain little and cost a compilation each."""
FIXED_ROWS = 64
"""Rows of the one bucket of models whose rows all have one shape, unless `batching.max_rows` says otherwise."""
LANES_MAX = 32
TOKENS_PER_SLOT = 4
"""A row that examples share has a slot for every so many tokens: few texts are shorter."""
SHARED_LENGTH_MIN = 64
"""The shortest row that examples share; shorter ones fill less well, longer ones cost more attention."""


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What batches should look like on one kind of device.

    `batch_tokens`: tokens in a batch from which on more bring nothing; None: as many as the job allows.
    `overhead_tokens`: what starting a batch costs, in the time of so many tokens.
    `lanes`: batches in flight. `parallel`: how many of them the device really works on at once.
    """

    platform: str
    lanes: int
    parallel: int
    batch_tokens: int | None
    overhead_tokens: int


def device_profile(platform: str, cores: int) -> DeviceProfile:
    """The profile of `platform` ("cpu", "gpu", "tpu", as jax names it) on a host with so many usable cores.

    On a CPU only large matrix products use more than one core, so one batch per core is in flight, small enough
    to stay in the cache. An accelerator works on one batch while the host prepares the next.
    """
    if platform == "cpu":
        lanes = max(1, min(cores, LANES_MAX))
        return DeviceProfile(platform, lanes, parallel=lanes, batch_tokens=512, overhead_tokens=16)
    return DeviceProfile(platform, lanes=2, parallel=1, batch_tokens=None, overhead_tokens=1024)


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """One compiled shape, per device: `rows` rows padded to `length` (0: the rows have one fixed shape)."""

    length: int
    rows: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.length}" if self.length else f"{self.rows} rows"

    @property
    def cells(self) -> int:
        """Tokens (or rows, where there is no length) that a batch costs, used or not."""
        return self.rows * max(1, self.length)


def slots_in(length: int) -> int:
    """Most examples in a row of `length` that examples share."""
    return max(1, length // TOKENS_PER_SLOT)


@dataclass(frozen=True, slots=True)
class BucketSet:
    """All shapes of one model, ascending in length, and the price of starting a batch (see `pack`).

    `shared`: a row may hold several examples (see sharing.py).
    """

    buckets: tuple[Bucket, ...]
    overhead_tokens: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        lengths = [bucket.length for bucket in self.buckets]
        ascending = all(a < b for a, b in pairwise(lengths))
        if not lengths or not ascending or any(bucket.rows < 1 for bucket in self.buckets) or lengths[0] < 0:
            raise ValueError(f"buckets must have rows and ascend in length: {self.buckets}")
        if lengths[0] == 0 and len(lengths) > 1:
            raise ValueError("rows of one fixed shape have one bucket")

    def __str__(self) -> str:
        return " ".join(map(str, self.buckets))

    @property
    def max_length(self) -> int:
        """Longest row that fits; 0 for rows of one fixed shape."""
        return self.buckets[-1].length

    def holding(self, length: int) -> Bucket:
        """The smallest bucket that a row of `length` fits. Raises EngineError if there is none."""
        for bucket in self.buckets:
            if bucket.length >= length:
                return bucket
        message = f"a row of length {length} fits no bucket (longest: {self.max_length})"
        raise EngineError(f"{message}; the task's prepare must cut or reject it")

    def slots(self, length: int) -> int:
        """Most examples in a row of `length`."""
        return slots_in(length) if self.shared else 1


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows (indices into the window) that one device computes together in `bucket`; at most `bucket.rows`."""

    bucket: Bucket
    rows: tuple[int, ...]


# --- choosing -------------------------------------------------------------------------------------------------------


def choose_buckets(
    max_length: int,
    max_tokens: int,
    max_rows: int | None,
    lengths: Sequence[int] | None,
    profile: DeviceProfile,
    shared: bool = False,
) -> BucketSet:
    """The buckets of a model that reads rows of up to `max_length` tokens (0: rows of one fixed shape).

    `max_tokens`, `max_rows`: the most in one batch of one device. `lengths`: the bucket lengths a user asked for,
    or None to have them chosen. `shared`: several examples may stand in one row.
    Depends on the kind of device only, not on how many there are.
    Raises SpecError where these do not go together.
    """
    if max_length == 0:
        return BucketSet((Bucket(0, max_rows or FIXED_ROWS),))
    if max_tokens < max_length:
        message = (
            f"a batch of {max_tokens} tokens cannot hold one text of {max_length}: raise it or lower task.max_length"
        )
        raise SpecError([Fault("", "batching.max_tokens", message)])
    if lengths is not None:
        chosen = _asked_lengths(lengths, max_length)
    else:
        chosen = _shared_lengths(max_length, max_tokens) if shared else _default_lengths(max_length)
    tokens = min(max_tokens, profile.batch_tokens or max_tokens)
    most = max_rows or tokens
    buckets = tuple(Bucket(length, max(1, min(most, tokens // length))) for length in chosen)
    return BucketSet(buckets, profile.overhead_tokens, shared)


def _shared_lengths(max_length: int, max_tokens: int) -> list[int]:
    """Rows that examples share: 64, doubled until the longest text fits. Few, as all of them fill well."""
    lengths = [min(SHARED_LENGTH_MIN, max_tokens)]
    while lengths[-1] < max_length:
        lengths.append(min(2 * lengths[-1], max_length))
    return lengths


def _asked_lengths(lengths: Sequence[int], max_length: int) -> list[int]:
    """As asked, but no longer than any text can be."""
    if list(lengths) != sorted(set(lengths)) or not lengths or lengths[0] < 1:
        raise SpecError([Fault("", "batching.buckets", f"{list(lengths)} must ascend, from 1 or more")])
    if lengths[-1] < max_length:
        message = (
            f"the longest is {lengths[-1]} but texts may have {max_length} tokens: "
            f"add {max_length} or lower task.max_length"
        )
        raise SpecError([Fault("", "batching.buckets", message)])
    return [length for length in lengths if length < max_length] + [max_length]


def _default_lengths(max_length: int) -> list[int]:
    """The BUCKETS_MAX lengths that pad least when text lengths follow `_share`: an exact search.

    `cost[k][j]` is the padded tokens per text when k buckets cover all texts up to `grid[j]`, the last bucket
    ending there; then cost[k][j] = min over i < j of cost[k-1][i] + share(i..j) * grid[j].
    """
    grid = _grid(max_length)
    below = list(accumulate((_share(a, b, max_length) for a, b in pairwise([0, *grid])), initial=0.0))
    cost = [0.0] + [math.inf] * len(grid)
    cuts: list[list[int]] = []
    for _ in range(min(BUCKETS_MAX, len(grid))):
        best = [
            min(range(j), key=lambda i: cost[i] + (below[j] - below[i]) * grid[j - 1]) if j else 0
            for j in range(len(grid) + 1)
        ]
        cost = [math.inf] + [cost[best[j]] + (below[j] - below[best[j]]) * grid[j - 1] for j in range(1, len(grid) + 1)]
        cuts.append(best)
    chosen, j = [], len(grid)
    for best in reversed(cuts):
        chosen.append(grid[j - 1])
        j = best[j]
    return sorted(set(chosen))


def _grid(max_length: int) -> list[int]:
    """Lengths worth considering: multiples of 8, coarser as they grow, and `max_length` itself."""
    steps = [(8, 256), (32, 1024), (256, 8192), (4096, max_length)]
    grid, at = [], 0
    for step, until in steps:
        while at + step <= until and at + step < max_length:
            at += step
            grid.append(at)
    return [*grid, max_length]


def _share(a: int, b: int, max_length: int) -> float:
    """How many texts are expected to have between a (exclusive) and b tokens.

    Sentences and short paragraphs are close to log-normal, with median 22 and sigma 0.8 (English docstrings); one
    text in ten is taken to be anything from 8 tokens to the longest, each scale as likely as the next. What is longer
    than `max_length` is cut there, and counts in the last share.
    """

    def below(length: int) -> float:
        if length == 0:
            return 0.0
        prose = 0.5 * (1 + math.erf(math.log(length / 22) / (0.8 * math.sqrt(2))))
        anything = math.log(length / 8) / math.log(max_length / 8) if length > 8 else 0.0
        return 0.9 * prose + 0.1 * anything

    return (1.0 if b == max_length else below(b)) - below(a)


# --- packing --------------------------------------------------------------------------------------------------------


def pack(lengths: Sequence[int], buckets: BucketSet) -> list[Batch]:
    """Every row in exactly one batch, at the least total cost; the longest rows come first.

    The cost of a batch is `overhead_tokens` + rows x length of its bucket, full or not. Rows are sorted by length
    (stable) and batches are runs of that order, so the best packing is found exactly: least[j], the cost of
    the j shortest rows, is the least over the buckets that hold row j of least[j - rows] + cost. That is also what
    lets a short tail ride in a larger bucket where this saves a batch. O(rows x buckets).
    Raises EngineError for a length that no bucket holds.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if order:
        _check_lengths(lengths[order[0]], lengths[order[-1]], buckets)
    costs = [buckets.overhead_tokens + bucket.cells for bucket in buckets.buckets]
    least, last, first = [0], [0], 0
    for j, row in enumerate(order, start=1):
        while buckets.buckets[first].length < lengths[row]:
            first += 1
        best = min(range(first, len(costs)), key=lambda b: least[max(0, j - buckets.buckets[b].rows)] + costs[b])
        least.append(least[max(0, j - buckets.buckets[best].rows)] + costs[best])
        last.append(best)
    return list(_batches(order, [buckets.buckets[b] for b in last]))


def _batches(order: Sequence[int], last: Sequence[Bucket]) -> Iterable[Batch]:
    """Walk the choices of `pack` back from the longest row."""
    end = len(order)
    while end:
        start = max(0, end - last[end].rows)
        yield Batch(last[end], tuple(order[start:end]))
        end = start


def _check_lengths(shortest: int, longest: int, buckets: BucketSet) -> None:
    buckets.holding(longest)
    if shortest < 0 or (shortest == 0) != (buckets.max_length == 0):
        raise EngineError(
            f"a row of length {shortest} fits no bucket; lengths are 1 or more, or all 0 for one fixed shape"
        )
