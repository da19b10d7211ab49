"""Makes the reference outputs in this folder from the original implementations.

Run once, in an environment of its own (none of it is needed to run the tests):

    pip install torch transformers sentence-transformers safetensors
    python tests/goldens/make_goldens.py path/to/all-MiniLM-L6-v2

Writes, for each member of the BERT family and each head, a tiny random model (`<member>-<head>/`: config.json,
model.safetensors, tokenizer.json) with `outputs.npz`; `truncation.json` for each tiny tokenizer and for MiniLM's; and
`minilm.npz`, the sentence embeddings of `minilm_texts.json`. The seed is fixed; everything is float32 on CPU.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
CORPUS = [
    "The quick brown fox jumps over the lazy dog, twice.",
    "A unit is a stable slice of the input; the grain of work, retry and commit.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter.",
    "日本語の文章もここにあります。",
    "Numbers such as 3.14159, 2,718 and 1e-9; brackets (like these) [and these].",
]
TEXTS = [
    "The fox.",
    "A stable slice of the input: work, retry, commit and a lazy dog.",
    "",
    "über naïve 日本語 \U0001f642 3.14",
    "jumps over the quick brown fox " * 3,
]
PAIRS = [("The lazy dog?", "A unit of work jumps over it."), ("fox " * 12, "dog"), ("fox", "dog " * 14), ("", "input")]
HEADS = {"none": "Model", "sequence": "ForSequenceClassification", "token": "ForTokenClassification"}
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
LABELS = {0: "no", 1: "perhaps", 2: "yes"}
MEMBERS = ("bert", "roberta", "xlm-roberta", "distilbert")
LIMITS = (4, 5, 6, 9, 16)
VOCABULARY = 160


@functools.cache  # training breaks ties by chance: the ids of these tiny vocabularies differ from run to run
def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@functools.cache
def byte_pairs() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


@functools.cache
def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=specials, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


TOKENIZERS = {"bert": wordpiece, "distilbert": wordpiece, "roberta": byte_pairs, "xlm-roberta": unigram}


def fast(member: str) -> transformers.PreTrainedTokenizerFast:
    bert_like = member in ("bert", "distilbert")
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if bert_like else ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    names = dict(zip(roles, words, strict=True))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS[member](), model_max_length=40, padding_side="right", **names
    )


def config_of(member: str, vocabulary: int) -> transformers.PretrainedConfig:
    common = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
    match member:
        case "bert":
            return transformers.BertConfig(vocab_size=vocabulary, max_position_embeddings=40, **SIZES, **common)
        case "roberta":
            sizes = dict(max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5, **SIZES)
            return transformers.RobertaConfig(vocab_size=vocabulary, pad_token_id=1, **sizes, **common)
        case "xlm-roberta":
            sizes = dict(max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5, **SIZES)
            return transformers.XLMRobertaConfig(vocab_size=vocabulary, pad_token_id=1, **sizes, **common)
        case _:
            sizes = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 40}
            return transformers.DistilBertConfig(vocab_size=vocabulary, **sizes, **common)


CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}


def randomise(model: torch.nn.Module) -> None:
    """Wide weights and uneven norms, so that a wrong formula shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter += 1.0


def padded(tokenizer: transformers.PreTrainedTokenizerFast, head: str, typed: bool) -> dict[str, torch.Tensor]:
    """Single texts for the token head; for the others pairs too; one text holds a literal padding token."""
    rows = [*TEXTS, f"fox {tokenizer.pad_token} dog"] + ([] if head == "token" else PAIRS)
    as_tuples = [(row,) if isinstance(row, str) else row for row in rows]
    encoded = [tokenizer(*row, truncation=True, return_token_type_ids=typed) for row in as_tuples]
    batch = {key: [row[key] for row in encoded] for key in encoded[0]}
    return dict(tokenizer.pad(batch, padding="max_length", max_length=40, return_tensors="pt"))


def tiny(member: str, head: str) -> None:
    tokenizer = fast(member)
    config = config_of(member, len(tokenizer))
    torch.manual_seed(len(member) * 10 + len(head))
    model = getattr(transformers, CLASSES[member] + HEADS[head])(config).eval()
    randomise(model)
    inputs = padded(tokenizer, head, typed=member == "bert")
    with torch.no_grad():
        output = model(**inputs)
    expected = output.last_hidden_state if head == "none" else output.logits
    folder = HERE / f"{member}-{head}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for leftover in folder.iterdir():
        if leftover.name not in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            leftover.unlink()
    arrays = {
        "tokens": inputs["input_ids"].int(),
        "lengths": inputs["attention_mask"].sum(1).int(),
        "expected": expected,
    }
    if "token_type_ids" in inputs:
        arrays["token_types"] = inputs["token_type_ids"].int()
    np.savez_compressed(folder / "outputs.npz", **{name: value.numpy() for name, value in arrays.items()})


def truncation(tokenizer: transformers.PreTrainedTokenizerFast, limits: tuple[int, ...]) -> list[dict[str, object]]:
    """Token ids (and types of pairs) of every text and pair at every limit; null: no limit."""
    cases: list[dict[str, object]] = []
    for limit in (None, *limits):
        options = {"truncation": limit is not None, "max_length": limit, "return_token_type_ids": True}
        for text in TEXTS:
            cases.append({"texts": [text], "limit": limit, "ids": tokenizer(text, **options)["input_ids"]})
        for pair in PAIRS:
            encoded = tokenizer(*pair, **options)
            types = encoded["token_type_ids"]
            cases.append({"texts": list(pair), "limit": limit, "ids": encoded["input_ids"], "types": types})
    return cases


def minilm(path: str) -> None:
    texts = json.loads((HERE / "minilm_texts.json").read_text("utf-8"))
    model = SentenceTransformer(path, device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ids = [tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in texts]
    np.savez_compressed(
        HERE / "minilm.npz",
        embeddings=model.encode(texts, normalize_embeddings=True).astype(np.float32),
        tokens=np.concatenate(ids).astype(np.int32),
        lengths=np.array([len(row) for row in ids], np.int32),
    )


def main() -> None:
    for member in MEMBERS:
        for head in HEADS:
            tiny(member, head)
    cases = {member: truncation(fast(member), LIMITS) for member in MEMBERS}
    cases["minilm"] = truncation(transformers.AutoTokenizer.from_pretrained(sys.argv[1]), LIMITS)
    (HERE / "truncation.json").write_text(json.dumps(cases, ensure_ascii=False), "utf-8")
    minilm(sys.argv[1])


if __name__ == "__main__":
    main()
