"""Texts to token ids, with the checkpoint's own `tokenizer.json`, in batches.

Cuts exactly as the original tokenizer would (special tokens stay, of a pair the longer text gives way first), but only
when told to: whether a long text is cut or rejected is the task's decision. Knows nothing of models or padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from batchinfer.errors import RestoreError
from batchinfer.models.checkpoints.locate import read_json

BATCH_CHARS = 1 << 20
"""Most characters handed to the tokenizer at once: an encoding takes about 500 bytes per token while it lives."""

HEAD_CHARS_PER_TOKEN = 16
"""A text longer than `limit` times this is read from the front; English has 4 to 5 characters per token."""

UNLIMITED = 1 << 20
"""`model_max_length` above this is how Hugging Face writes "no limit"."""


@dataclass(frozen=True, slots=True)
class PairTokens:
    """Two texts as one sequence: `tokens`, `token_types`: int32[L]; `first`, `second`: their own token counts."""

    tokens: np.ndarray
    token_types: np.ndarray
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class SpannedTokens:
    """`tokens`: int32[L]; `offsets`: int32[L, 2], [begin, end) in characters of the text, (0, 0) for special tokens."""

    tokens: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True, slots=True)
class _Template:
    """The special tokens around one text or two: `parts[i]` stand before text i, the last part behind all texts.

    `part_types` are their token types, `text_types[i]` the type of every token of text i.
    """

    parts: tuple[np.ndarray, ...]
    part_types: tuple[np.ndarray, ...]
    text_types: tuple[int, ...]

    @property
    def count(self) -> int:
        return sum(len(part) for part in self.parts)

    def tokens(self, *texts: np.ndarray) -> np.ndarray:
        return _interleave(self.parts, texts)

    def types(self, *lengths: int) -> np.ndarray:
        of_texts = [np.full(n, t, np.int32) for n, t in zip(lengths, self.text_types, strict=True)]
        return _interleave(self.part_types, of_texts)


class TextTokenizer:
    """A tokenizer bound to one checkpoint; safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, *, pad_id: int = 0, default_max_length: int | None = None):
        """`default_max_length`: what the checkpoint recommends, special tokens included; None if it does not say."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.pad_id = pad_id
        self.default_max_length = default_max_length
        self.vocabulary_size: int = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        sample = _sample_text(tokenizer)
        self._single = _template(tokenizer.encode(sample))
        self._pair = _template(tokenizer.encode(sample, sample))

    @classmethod
    def load(cls, directory: Path, *, model_vocabulary_size: int | None = None) -> TextTokenizer:
        """From `tokenizer.json` and, where they are, `tokenizer_config.json` and `sentence_bert_config.json`.

        RestoreError if it is missing or broken, or can give ids that the model has no embedding for.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise RestoreError(str(path), ["missing; save it with transformers' AutoTokenizer (use_fast=True)"])
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise RestoreError(str(path), [f"cannot be read as a tokenizer: {error}"]) from error
        config = read_json(directory / "tokenizer_config.json")
        made = cls(
            tokenizer,
            pad_id=_pad_id(tokenizer, config, read_json(directory / "special_tokens_map.json")),
            default_max_length=_default_max_length(config, read_json(directory / "sentence_bert_config.json")),
        )
        if model_vocabulary_size is not None and made.vocabulary_size > model_vocabulary_size:
            problem = (
                f"has ids up to {made.vocabulary_size - 1}, but the model's vocabulary ends at "
                f"{model_vocabulary_size - 1}; tokenizer and weights belong to different models"
            )
            raise RestoreError(str(path), [problem])
        return made

    def specials(self, *, pair: bool = False) -> int:
        """How many special tokens stand around one text (or two): the least sensible `max_length` is one more."""
        return (self._pair if pair else self._single).count

    def encode(self, texts: Sequence[str], *, limit: int | None = None) -> list[np.ndarray]:
        """Token ids int32[L] of each text, special tokens included, uncut.

        With `limit`, a text that has more than `limit` tokens may be read only as far as is needed to know it: its
        array has more than `limit` tokens and begins like the whole. Texts must be valid Unicode (no lone surrogates).
        """
        return [self._single.tokens(ids) for ids in self._bare(texts, limit)]

    def truncate(self, per_token: np.ndarray, max_length: int) -> np.ndarray:
        """The first tokens and the trailing special ones, at most `max_length`. `per_token`: [L] or [L, ...]."""
        _check_room(max_length, self.specials())
        if len(per_token) <= max_length:
            return per_token
        tail = len(self._single.parts[-1])
        return np.concatenate([per_token[: max_length - tail], per_token[len(per_token) - tail :]])

    def encode_pairs(
        self, firsts: Sequence[str], seconds: Sequence[str], *, limit: int | None = None
    ) -> list[PairTokens]:
        """Both texts as one sequence, special tokens included, uncut. `limit` as for `encode`, for each text."""
        pairs = zip(self._bare(firsts, limit), self._bare(seconds, limit), strict=True)
        return [self._joined(first, second) for first, second in pairs]

    def truncate_pair(self, pair: PairTokens, max_length: int) -> PairTokens:
        """Cuts the longer text until both fit; once they are equal, both ("longest first")."""
        _check_room(max_length, self.specials(pair=True))
        if len(pair.tokens) <= max_length:
            return pair
        begin_first = len(self._pair.parts[0])
        begin_second = begin_first + pair.first + len(self._pair.parts[1])
        keep_first, keep_second = _longest_first(pair.first, pair.second, max_length - self._pair.count)
        return self._joined(
            pair.tokens[begin_first : begin_first + keep_first],
            pair.tokens[begin_second : begin_second + keep_second],
        )

    def encode_spans(self, texts: Sequence[str], *, limit: int | None = None) -> list[SpannedTokens]:
        """Like `encode`, with where each token stands in its text; several times slower."""
        return [
            SpannedTokens(np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2))
            for chunk in _chunks(texts)
            for encoding in self._tokenizer.encode_batch([self._head(text, limit) for text in chunk])
        ]

    def _joined(self, first: np.ndarray, second: np.ndarray) -> PairTokens:
        types = self._pair.types(len(first), len(second))
        return PairTokens(self._pair.tokens(first, second), types, len(first), len(second))

    def _bare(self, texts: Sequence[str], limit: int | None) -> Iterator[np.ndarray]:
        """Token ids without special tokens."""
        for chunk in _chunks(texts):
            heads = [self._head(text, limit) for text in chunk]
            for encoding in self._tokenizer.encode_batch_fast(heads, add_special_tokens=False):
                yield np.array(encoding.ids, np.int32)

    def _head(self, text: str, limit: int | None) -> str:
        """`text`, or enough of its front, up to a white space, to give more than twice `limit` tokens.

        The margin keeps the cut far from the tokens that count. Doubles, so the cost is at most twice that of the text.
        """
        if limit is None:
            return text
        chars = max(limit, 64) * HEAD_CHARS_PER_TOKEN
        while chars < len(text):
            head = (text[:chars].rsplit(None, 1) or [""])[0]
            if len(self._tokenizer.encode_batch_fast([head], add_special_tokens=False)[0].ids) > 2 * limit:
                return head
            chars *= 2
        return text


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Consecutive texts, at most `BATCH_CHARS` characters together (or one longer text alone)."""
    chunk: list[str] = []
    chars = 0
    for text in texts:
        if chunk and chars + len(text) > BATCH_CHARS:
            yield chunk
            chunk, chars = [], 0
        chunk.append(text)
        chars += len(text)
    if chunk:
        yield chunk


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay: the shorter one whole if it fits in half the room, the longer what is left."""
    keep_shorter = min(first, second, room // 2)
    return (room - keep_shorter, keep_shorter) if first > second else (keep_shorter, room - keep_shorter)


def _check_room(max_length: int, specials: int) -> None:
    if max_length < specials:
        raise ValueError(f"max_length is {max_length}, but {specials} special tokens always stay")


def _interleave(parts: Sequence[np.ndarray], texts: Sequence[np.ndarray]) -> np.ndarray:
    pieces = [parts[0]]
    for text, part in zip(texts, parts[1:], strict=True):
        pieces += [text, part]
    return np.concatenate(pieces)


def _sample_text(tokenizer: Tokenizer) -> str:
    """Some text that gives at least one token."""
    for text in ("a", "1", ".", *tokenizer.get_vocab()):
        if tokenizer.encode(text, add_special_tokens=False).ids:
            return text
    raise RestoreError("tokenizer.json", ["no text gives any token; the vocabulary is empty or broken"])


def _template(sample: Encoding) -> _Template:
    """What the tokenizer puts around texts, read off an encoded sample."""
    ids, types = np.array(sample.ids, np.int32), np.array(sample.type_ids, np.int32)
    sequence = np.array([-1 if s is None else s for s in sample.sequence_ids])
    edges = [0]
    text_types = []
    for text in range(sample.n_sequences):
        where = np.flatnonzero(sequence == text)
        edges += [int(where[0]), int(where[-1]) + 1]
        text_types.append(int(types[where[0]]))
    edges.append(len(ids))
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    return _Template(
        parts=tuple(ids[begin:end] for begin, end in spans),
        part_types=tuple(types[begin:end] for begin, end in spans),
        text_types=tuple(text_types),
    )


def _pad_id(tokenizer: Tokenizer, *configs: dict[str, Any]) -> int:
    for config in configs:
        token = config.get("pad_token")
        content = token.get("content") if isinstance(token, dict) else token
        found = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if found is not None:
            return found
    return 0


def _default_max_length(*configs: dict[str, Any]) -> int | None:
    named = [config.get(key) for config in configs for key in ("max_seq_length", "model_max_length")]
    lengths = [int(n) for n in named if isinstance(n, int | float) and 0 < n < UNLIMITED]
    return min(lengths, default=None)
