"""From text fields to token arrays: the part that every text task shares.

A text that is missing, null, not text, or too long (and not to be cut) becomes a Rejection.
Knows nothing of devices or outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchinfer.models.tokenizer import PairTokens, TextTokenizer
from batchinfer.record import Record, Rejection, reject
from batchinfer.tasks.base import Example


@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads one text (or a pair of texts) per record."""

    tokenizer: TextTokenizer
    fields: tuple[str, ...]
    max_length: int
    truncate: bool

    def examples(self, records: Sequence[Record]) -> list[Example | Rejection]:
        """One `tokens: int32[L]` (pairs: also `token_types: int32[L]`) or Rejection per record, in order."""
        results: list[Example | Rejection | None] = [self._fault(record) for record in records]
        good = [i for i, result in enumerate(results) if result is None]
        for i, example in zip(good, self._encode([records[i] for i in good]), strict=True):
            results[i] = example
        return results  # type: ignore[return-value]

    def texts(self, record: Record) -> tuple[str, ...]:
        return tuple(record.fields[field] for field in self.fields)

    def _fault(self, record: Record) -> Rejection | None:
        for field in self.fields:
            if field not in record.fields:
                return reject(record, "prepare", "missing_field", f'there is no field "{field}" in this record')
            value = record.fields[field]
            if value is None:
                return reject(record, "prepare", "null_field", f'field "{field}" is null, text is due')
            if not isinstance(value, str):
                kind = type(value).__name__
                return reject(record, "prepare", "not_text", f'field "{field}" holds {kind}, text is due')
        return None

    def _encode(self, records: list[Record]) -> list[Example | Rejection]:
        texts = [self.texts(record) for record in records]
        if len(self.fields) == 2:
            firsts, seconds = zip(*texts, strict=True) if texts else ((), ())
            pairs = self.tokenizer.encode_pairs(firsts, seconds, limit=self.max_length)
            return [self._pair(record, pair) for record, pair in zip(records, pairs, strict=True)]
        tokens = self.tokenizer.encode([text for (text,) in texts], limit=self.max_length)
        return [self._single(record, ids) for record, ids in zip(records, tokens, strict=True)]

    def _single(self, record: Record, tokens: np.ndarray) -> Example | Rejection:
        if len(tokens) > self.max_length and not self.truncate:
            return self._too_long(record)
        tokens = self.tokenizer.truncate(tokens, self.max_length)
        return Example({"tokens": tokens}, len(tokens))

    def _pair(self, record: Record, pair: PairTokens) -> Example | Rejection:
        if len(pair.tokens) > self.max_length and not self.truncate:
            return self._too_long(record)
        pair = self.tokenizer.truncate_pair(pair, self.max_length)
        return Example({"tokens": pair.tokens, "token_types": pair.token_types}, len(pair.tokens))

    def _too_long(self, record: Record) -> Rejection:
        chars = sum(len(text) for text in self.texts(record))
        message = (
            f"{chars:,} characters are more than {self.max_length} tokens (task.max_length); "
            "task.truncate: true cuts such texts"
        )
        return reject(record, "prepare", "too_long", message)


def text_limit(wanted: int | None, tokenizer: TextTokenizer, model_limit: int | None) -> int:
    """Most tokens per text: the job's, else the tokenizer's own, never more than the model can read."""
    limits = [limit for limit in (wanted or tokenizer.default_max_length, model_limit) if limit is not None]
    return min(limits) if limits else 512
