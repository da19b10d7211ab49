"""The BERT family against the original implementations' outputs (see goldens/make_goldens.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from batchinfer.job import spec
from batchinfer.models.bert import BertConfig, SequenceHead
from batchinfer.models.load import flops_per_row, load_model, pure_bert
from batchinfer.models.precision import BFLOAT16, FLOAT32, Precision, resolve_dtype

MEMBERS = ("bert", "roberta", "xlm-roberta", "distilbert")
SMALL = BertConfig(
    vocabulary=50, width=16, layers=2, heads=2, inner=32, positions=24, token_types=2, norm_epsilon=1e-12
)  # fmt: skip


def padded(rows: list[np.ndarray], length: int, fill: int = 0) -> dict[str, np.ndarray]:
    tokens = np.full((len(rows), length), fill, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return {"tokens": tokens, "lengths": np.array([len(ids) for ids in rows], np.int32)}


def mean_pooled(outputs: dict[str, jax.Array], inputs: dict[str, np.ndarray]) -> np.ndarray:
    inside = np.arange(inputs["tokens"].shape[1]) < inputs["lengths"][:, None]
    pooled = np.where(inside[..., None], outputs["hidden"], 0).sum(1)
    return pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


@pytest.mark.parametrize("head", ["none", "sequence", "token"])
@pytest.mark.parametrize("member", MEMBERS)
def test_equals_the_original(member: str, head: str, goldens: Path, load) -> None:
    golden = np.load(goldens / f"{member}-{head}" / "outputs.npz")
    model = load(goldens / f"{member}-{head}", head=head)
    inputs = {name: golden[name] for name in ("tokens", "lengths", "token_types") if name in golden}
    (got,) = jax.jit(model.apply)(model.params, inputs).values()
    expected = golden["expected"]
    if head != "sequence":  # what stands beyond a row's length means nothing
        inside = np.arange(expected.shape[1]) < golden["lengths"][:, None]
        got, expected = np.asarray(got)[inside], expected[inside]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
    assert model.labels == (() if head == "none" else ("no", "perhaps", "yes"))


@pytest.mark.parametrize(("dtype", "cosine_min"), [("float32", 0.999999), ("bfloat16", 0.9999)])
def test_minilm_embeds_like_sentence_transformers(
    dtype: str, cosine_min: float, goldens: Path, minilm: str, load
) -> None:
    golden = np.load(goldens / "minilm.npz")
    model = load(minilm, dtype=dtype)
    rows = np.split(golden["tokens"], np.cumsum(golden["lengths"])[:-1])
    inputs = padded(rows, 256)
    vectors = mean_pooled(jax.jit(model.apply)(model.params, inputs), inputs)
    assert (vectors * golden["embeddings"]).sum(-1).min() >= cosine_min
    assert model.pooling == "mean"
    assert (model.max_length, model.tokenizer.default_max_length) == (512, 256)


@pytest.mark.parametrize("member", ["bert", "roberta", "distilbert"])
def test_padding_never_changes_a_result(member: str, goldens: Path, load) -> None:
    """Alone, or in a longer bucket beside other rows over other padding ids: the same hidden states."""
    model = load(goldens / f"{member}-none")
    run = jax.jit(model.apply)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 100, size) for size in (3, 9, 17)]
    together = run(model.params, padded(rows, 30, fill=7))["hidden"]
    alone = run(model.params, padded(rows[1:2], 9))["hidden"]
    np.testing.assert_allclose(together[1, :9], alone[0], atol=2e-5)


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_a_row_of_padding_is_finite_and_disturbs_no_other(precision: Precision) -> None:
    run, params = small(precision)
    tokens = np.ones((2, 8), np.int32)
    with_padding_row = run(params, {"tokens": tokens, "lengths": np.array([5, 0], np.int32)})["hidden"]
    with_other_row = run(params, {"tokens": tokens, "lengths": np.array([5, 8], np.int32)})["hidden"]
    assert np.isfinite(with_padding_row).all()
    np.testing.assert_array_equal(with_padding_row[0, :5], with_other_row[0, :5])


def test_no_token_beyond_the_length_is_seen() -> None:
    """The gradient of a row's own hidden states is zero at an id that occurs only in its padding."""
    run, params = small(FLOAT32)
    inputs = {"tokens": np.array([[3, 4, 9, 9]], np.int32), "lengths": np.array([2], np.int32)}
    by_word = jax.jit(jax.grad(lambda p: run(p, inputs)["hidden"][0, :2, :3].sum()))(params)["embeddings.word"]
    assert (by_word[9] == 0).all()
    assert (by_word[3] != 0).any()


def small(precision: Precision):
    """The jitted function of a small model, and random parameters for it."""
    pure = pure_bert(SMALL, precision)
    rng = np.random.default_rng(0)
    params = {n: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for n, leaf in pure.leaves.items()}
    return jax.jit(pure.apply), params


@pytest.mark.parametrize(("member", "matter"), [("bert", True), ("roberta", False), ("distilbert", False)])
def test_token_types_count_where_the_model_has_them(member: str, matter: bool, goldens: Path, load) -> None:
    model = load(goldens / f"{member}-none")
    run = jax.jit(model.apply)
    inputs = padded([np.arange(5, 15)], 10)
    hidden = [run(model.params, inputs | {"token_types": np.array([[0] * 5 + [t] * 5], np.int32)}) for t in (0, 1)]
    assert bool((hidden[0]["hidden"] != hidden[1]["hidden"]).any()) == matter


@pytest.mark.parametrize("member", MEMBERS)
def test_a_row_longer_than_the_position_table_is_an_error(member: str, goldens: Path, load) -> None:
    model = load(goldens / f"{member}-none")
    assert model.max_length == 40
    jax.eval_shape(model.apply, model.params, padded([np.full(40, 9)], 40))
    with pytest.raises(ValueError, match="rows of 41 tokens, but the model reads 40"):
        jax.eval_shape(model.apply, model.params, padded([np.full(41, 9)], 41))


def test_bfloat16_keeps_product_weights_small_and_sums_in_float32(goldens: Path, load) -> None:
    model = load(goldens / "bert-sequence", head="sequence", dtype="bfloat16")
    large = ("kernel", "embeddings.word")
    kernels = {leaf.dtype for name, leaf in model.params.items() if name.endswith(large)}
    others = {leaf.dtype for name, leaf in model.params.items() if not name.endswith(large)}
    assert (kernels, others) == ({jnp.dtype(jnp.bfloat16)}, {jnp.dtype(jnp.float32)})
    program = jax.make_jaxpr(model.apply)(model.params, padded([np.arange(9)], 9))
    products = [e for e in _equations(program.jaxpr) if e.primitive.name == "dot_general"]
    assert products
    for product in products:
        assert {operand.aval.dtype for operand in product.invars} == {jnp.dtype(jnp.bfloat16)}
        assert product.outvars[0].aval.dtype == jnp.float32


def _equations(jaxpr: jax.extend.core.Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def test_resolve_dtype() -> None:
    assert resolve_dtype("float32", "tpu") == FLOAT32
    assert resolve_dtype("bfloat16", "cpu") == BFLOAT16
    assert resolve_dtype("auto", "gpu") == BFLOAT16


def test_flops_leave_out_the_tables_and_grow_with_the_square() -> None:
    with_head = BertConfig(50, 16, 2, 2, 32, 24, 2, 1e-12, head=SequenceHead(3))
    pure = pure_bert(SMALL, FLOAT32)
    per_layer = 16 * 48 + 48 + 16 * 16 + 16 + 2 * 16 * 32 + 32 + 16 + 4 * 16
    assert flops_per_row(SMALL, pure.leaves)(10) == 2 * (2 * per_layer) * 10 + 4 * 2 * 16 * 100
    assert flops_per_row(with_head, pure_bert(with_head, FLOAT32).leaves)(10) > flops_per_row(SMALL, pure.leaves)(10)


def test_parameters_go_where_each_is_told(goldens: Path) -> None:
    """A placement by name is asked once for each parameter."""
    asked = []
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placement(name: str) -> jax.sharding.Sharding:
        asked.append(name)
        return device

    model = load_model(spec.Model(checkpoint=str(goldens / "bert-none")), sharding=placement)
    assert set(asked) == set(model.params)
    assert model.parameter_count == sum(leaf.size for leaf in model.params.values())
    assert model.parameter_bytes < 4 * model.parameter_count


def test_goldens_stay_small(goldens: Path) -> None:
    assert sum(path.stat().st_size for path in goldens.rglob("*") if path.is_file()) < 1_500_000
    assert len(json.loads((goldens / "minilm_texts.json").read_text("utf-8"))) >= 12
