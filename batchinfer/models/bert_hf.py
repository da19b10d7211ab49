"""What Hugging Face calls the members of the BERT family and their parts: config.json and tensor names to ours.

Knows nothing of files or devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from batchinfer.errors import RestoreError
from batchinfer.models.bert import BertConfig, Head, NoHead, SequenceHead, TokenHead
from batchinfer.models.checkpoints.hf import Recipe

AskedHead = Literal["none", "sequence", "token"]
ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip
HEAD_SUFFIX = {"sequence": "ForSequenceClassification", "token": "ForTokenClassification"}
UNUSED = (
    "pooler.", "classifier.", "pre_classifier.", "cls.", "lm_head.", "qa_outputs.",
    "vocab_transform.", "vocab_layer_norm.", "vocab_projector.",
)  # fmt: skip
"""Parts that other heads use."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where one member keeps things. `prefix`: of every encoder tensor, in checkpoints of a model with a head."""

    prefix: str
    layer: str
    qkv: tuple[str, str, str]
    out: str
    attention_norm: str
    up: str
    down: str
    norm: str
    sequence_dense: str
    sequence_out: str
    config: Mapping[str, str]
    """Our config field to the key in config.json."""


CONFIG_KEYS = {
    "vocabulary": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "inner": "intermediate_size", "positions": "max_position_embeddings",
    "token_types": "type_vocab_size", "norm_epsilon": "layer_norm_eps", "activation": "hidden_act",
}  # fmt: skip
BERT = Names(
    prefix="bert.",
    layer="encoder.layer.",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
    sequence_dense="pooler.dense",
    sequence_out="classifier",
    config=CONFIG_KEYS,
)
ROBERTA = Names(
    prefix="roberta.",
    layer=BERT.layer,
    qkv=BERT.qkv,
    out=BERT.out,
    attention_norm=BERT.attention_norm,
    up=BERT.up,
    down=BERT.down,
    norm=BERT.norm,
    sequence_dense="classifier.dense",
    sequence_out="classifier.out_proj",
    config=CONFIG_KEYS,
)
DISTILBERT = Names(
    prefix="distilbert.",
    layer="transformer.layer.",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    sequence_dense="pre_classifier",
    sequence_out="classifier",
    config={
        "vocabulary": "vocab_size", "width": "dim", "layers": "n_layers", "heads": "n_heads", "inner": "hidden_dim",
        "positions": "max_position_embeddings", "activation": "activation",
    },
)  # fmt: skip
FAMILY = {
    "bert": BERT, "roberta": ROBERTA, "xlm-roberta": ROBERTA, "camembert": ROBERTA, "distilbert": DISTILBERT,
}  # fmt: skip
"""By `model_type`."""


def names_of(where: str, config: Mapping[str, Any]) -> Names:
    """By config.json's `model_type`. RestoreError, naming the supported ones, if it is none of the family."""
    model_type = config.get("model_type")
    if model_type not in FAMILY:
        kind = model_type or ", ".join(config.get("architectures") or ()) or "of an unnamed kind"
        known = ", ".join(FAMILY)
        raise RestoreError(where, [f"the model is {kind}; supported are {known}, or your own (model.module)"])
    return FAMILY[model_type]


def bert_config(where: str, config: Mapping[str, Any], asked: AskedHead) -> BertConfig:
    """config.json as our config, with the head that the task asks for. RestoreError with everything unsupported."""
    names = names_of(where, config)
    problems = [f"config.json has no {key}" for field, key in names.config.items() if key not in config]
    problems += _unsupported(config, names) + _wrong_head(config, asked)
    if problems:
        raise RestoreError(where, problems)
    fields = {field: config[key] for field, key in names.config.items()}
    fields["activation"] = ACTIVATIONS[fields["activation"]]
    fields.setdefault("token_types", 0)
    fields.setdefault("norm_epsilon", 1e-12)  # DistilBERT's is fixed
    padding_id = config.get("pad_token_id", 1) if names is ROBERTA else None
    return BertConfig(**fields, padding_id=padding_id, head=_head(config, asked))


def labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes, in order; a model that names none has as many as `num_labels`, or two."""
    named = config.get("id2label")
    if not named:
        return tuple(f"LABEL_{index}" for index in range(config.get("num_labels", 2)))
    return tuple(named[index] for index in sorted(named, key=int))


def own_head(config: Mapping[str, Any]) -> AskedHead:
    """The head that the checkpoint was saved with."""
    architectures = config.get("architectures") or ()
    for asked in ("sequence", "token"):
        if any(name.endswith(HEAD_SUFFIX[asked]) for name in architectures):
            return asked
    return "none"


def recipes(config: BertConfig, names: Names) -> dict[str, Recipe]:
    """How each of our parameters comes from the tensors, for a model whose tensors went through `uniform_name`."""
    made = {
        "embeddings.word": Recipe(("embeddings.word_embeddings.weight",)),
        "embeddings.position": Recipe(("embeddings.position_embeddings.weight",)),
        **_norm("embeddings.norm", "embeddings.LayerNorm"),
    }
    if config.token_types:
        made["embeddings.token_type"] = Recipe(("embeddings.token_type_embeddings.weight",))
    for index in range(config.layers):
        made |= _layer(f"layers.{index}", f"{names.layer}{index}", names)
    match config.head:
        case SequenceHead():
            made |= _dense("head.dense", names.sequence_dense) | _dense("head.out", names.sequence_out)
        case TokenHead():
            made |= _dense("head.out", "classifier")
    return made


def uniform_name(stored: str, names: Names) -> str:
    """Without the model's prefix, and with today's names for the two parts of a norm."""
    name = stored.removeprefix(names.prefix)
    if name.endswith((".LayerNorm.gamma", ".LayerNorm.beta")):
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name


def unused(name: str) -> bool:
    """Whether a stored tensor may be left over: another head's, or a constant that old versions saved."""
    return name.startswith(UNUSED) or name.endswith((".position_ids", ".token_type_ids"))


def _layer(ours: str, theirs: str, names: Names) -> dict[str, Recipe]:
    return {
        **_dense(f"{ours}.qkv", *(f"{theirs}.{part}" for part in names.qkv)),
        **_dense(f"{ours}.out", f"{theirs}.{names.out}"),
        **_norm(f"{ours}.attention_norm", f"{theirs}.{names.attention_norm}"),
        **_dense(f"{ours}.up", f"{theirs}.{names.up}"),
        **_dense(f"{ours}.down", f"{theirs}.{names.down}"),
        **_norm(f"{ours}.norm", f"{theirs}.{names.norm}"),
    }


def _dense(ours: str, *theirs: str) -> dict[str, Recipe]:
    return {
        f"{ours}.kernel": Recipe(tuple(f"{name}.weight" for name in theirs), transpose=True),
        f"{ours}.bias": Recipe(tuple(f"{name}.bias" for name in theirs)),
    }


def _norm(ours: str, theirs: str) -> dict[str, Recipe]:
    return {f"{ours}.scale": Recipe((f"{theirs}.weight",)), f"{ours}.bias": Recipe((f"{theirs}.bias",))}


def _head(config: Mapping[str, Any], asked: AskedHead) -> Head:
    match asked:
        case "none":
            return NoHead()
        case "sequence":
            return SequenceHead(len(labels(config)), "relu" if config["model_type"] == "distilbert" else "tanh")
        case "token":
            return TokenHead(len(labels(config)))


def _unsupported(config: Mapping[str, Any], names: Names) -> list[str]:
    problems = []
    activation = config.get(names.config["activation"], "gelu")
    if activation not in ACTIVATIONS:
        problems.append(f"activation {activation} is not supported, only {', '.join(ACTIVATIONS)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        problems.append(f"position_embedding_type {config['position_embedding_type']} is not supported, only absolute")
    if config.get("is_decoder"):
        problems.append("is_decoder: true; only encoders are supported")
    width, heads = (config.get(names.config[field]) for field in ("width", "heads"))
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        problems.append(f"{width} wide, which {heads} attention heads cannot share")
    return problems


def _wrong_head(config: Mapping[str, Any], asked: AskedHead) -> list[str]:
    if asked == "none" or own_head(config) == asked:
        return []
    have = ", ".join(config.get("architectures") or ()) or "no architecture"
    return [f"config.json says {have}; this task needs a model saved as ...{HEAD_SUFFIX[asked]}"]
