"""Where a checkpoint is and which files it consists of, found without jax and without reading any weights.

Planning uses this: what is missing is said before any work is done, `step: latest` is settled once, and the files'
identities go into the fingerprint. Knows nothing of tensors, names or models.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from batchinfer.errors import RestoreError

PACKAGE = "package://"
HASH_BYTES_MAX = 1 << 30
"""Up to this size together, files are identified by content; above, by size and modification time."""

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
POOLING = "1_Pooling/config.json"
COMPANIONS = (
    CONFIG, TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "sentence_bert_config.json", POOLING,
)  # fmt: skip
"""Files beside the weights that decide what the model computes; `convert` copies them."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FOREIGN = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5", "*.onnx")

ORBAX_ROOT = "_CHECKPOINT_METADATA"
ORBAX_TREE = "_METADATA"
ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"
ORBAX_COMMITTED = "commit_success.txt"
TREE_NAMES = ("params", "state", "default", "model", "pytree")
"""Subdirectories in which Orbax keeps the tree; the first that exists is taken when there are several."""


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """A checkpoint on this machine.

    `name`: as the job wrote it. `files`: (path relative to `directory`, bytes), sorted: all that can change a result.
    `tree`: the Orbax tree's subdirectory, None if it is `directory` itself. `step`: chosen among step directories.
    """

    name: str
    kind: Literal["hf", "orbax"]
    directory: Path
    files: tuple[tuple[str, int], ...]
    tree: str | None = None
    step: int | None = None

    @property
    def weights(self) -> tuple[Path, ...]:
        """The safetensors files (none for Orbax)."""
        return tuple(self.directory / path for path, _ in self.files if path.endswith(".safetensors"))

    def json(self, path: str) -> dict[str, Any]:
        """One of the small JSON files; {} if it is not part of the checkpoint."""
        if all(path != have for have, _ in self.files):
            return {}
        return read_json(self.directory / path)


def resolve(checkpoint: str, *, own_module: bool = False) -> CheckpointPlace:
    """The checkpoint under a directory or `package://package/path`; of step directories the latest committed one.

    `own_module`: the model is the user's code, so weights are enough: no config.json, no tokenizer.
    RestoreError naming everything that is missing or unfinished, and what to do about it.
    """
    directory = _directory(checkpoint)
    if not directory.exists():
        raise RestoreError(checkpoint, ["does not exist"])
    if not directory.is_dir():
        raise RestoreError(checkpoint, ["is a file; give the directory that holds it"])
    if ORBAX_TEMPORARY in directory.name:
        raise RestoreError(checkpoint, ["an Orbax save that was never finished; use an earlier step or save again"])
    steps = _steps(checkpoint, directory)
    if steps and not _is_orbax(directory):
        step = max(steps)
        return _orbax(checkpoint, steps[step], own_module, step)
    if _is_orbax(directory):
        return _orbax(checkpoint, directory, own_module, None)
    return _hugging_face(checkpoint, directory, own_module)


def identity(place: CheckpointPlace) -> list[dict[str, str | int]]:
    """What the files are, for the fingerprint: path, size and sha256, or above 1 GiB in all path, size and mtime_ns."""
    by_content = sum(size for _, size in place.files) <= HASH_BYTES_MAX
    return [
        {"path": path, "size": size, **(_content if by_content else _modified)(place.directory / path)}
        for path, size in place.files
    ]


def _content(path: Path) -> dict[str, str | int]:
    with path.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _modified(path: Path) -> dict[str, str | int]:
    return {"mtime_ns": path.stat().st_mtime_ns}


def _directory(checkpoint: str) -> Path:
    if checkpoint.startswith(PACKAGE):
        return _in_package(checkpoint)
    if re.match(r"^[a-z][a-z0-9+.-]*://", checkpoint):
        raise RestoreError(checkpoint, [f"only local directories and {PACKAGE} can be read; copy it to a local disk"])
    return Path(checkpoint).expanduser().absolute()


def _in_package(checkpoint: str) -> Path:
    """Inside an installed package, without importing it: its own code may need what is not installed."""
    package, _, path = checkpoint.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier():
        raise RestoreError(checkpoint, [f"must read {PACKAGE}<package>/<path>, the package by its import name"])
    if ".." in PurePosixPath(path).parts:
        raise RestoreError(checkpoint, ["must not leave the package"])
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise RestoreError(checkpoint, [f"package {package} is not installed in this environment"])
    if not spec.submodule_search_locations:
        raise RestoreError(checkpoint, [f"{package} is a single module, it holds no files"])
    return Path(next(iter(spec.submodule_search_locations))) / path


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def _hugging_face(name: str, directory: Path, own_module: bool) -> CheckpointPlace:
    problems = [] if own_module else _missing_companions(directory)
    weights = _weights(directory, own_module, problems)
    if problems:
        raise RestoreError(name, problems)
    index = [INDEX] if len(weights) > 1 and (directory / INDEX).is_file() else []
    return CheckpointPlace(name, "hf", directory, _sizes(directory, [*_companions(directory), *index, *weights]))


def _weights(directory: Path, own_module: bool, problems: list[str]) -> list[str]:
    """Names of the safetensors files; what is wrong with them is added to `problems`."""
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    if (directory / INDEX).is_file():
        shards = sorted(set(read_json(directory / INDEX).get("weight_map", {}).values()))
        lost = [shard for shard in shards if not (directory / shard).is_file()]
        problems += [f"{shard} is missing, but {INDEX} names it" for shard in lost]
        return shards
    single = sorted(path.name for path in directory.glob("*.safetensors"))
    if own_module and len(single) == 1:
        return single
    foreign = sorted({path.name for pattern in FOREIGN for path in directory.glob(pattern)})
    if foreign:
        problems.append(
            f"only {', '.join(foreign)} is here; pickled and foreign weights are never loaded: convert once to "
            "safetensors with transformers' save_pretrained"
        )
    else:
        problems.append(f"no weights: expected {WEIGHTS}, {INDEX} with its shards, or an Orbax checkpoint")
    return []


def _missing_companions(directory: Path) -> list[str]:
    problems = []
    if not (directory / CONFIG).is_file():
        problems.append(f"{CONFIG} is missing; it says what the model is (or name your own with model.module)")
    if not (directory / TOKENIZER).is_file():
        problems.append(f"{TOKENIZER} is missing; save it with transformers' AutoTokenizer (use_fast=True)")
    return problems


def _companions(directory: Path) -> list[str]:
    return [name for name in COMPANIONS if (directory / name).is_file()]


def _sizes(directory: Path, names: list[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, (directory / name).stat().st_size) for name in names))


# --- Orbax ----------------------------------------------------------------------------------------------------------


def _is_orbax(directory: Path) -> bool:
    return (directory / ORBAX_ROOT).is_file() or (directory / ORBAX_TREE).is_file() or bool(_tree_names(directory))


def _tree_names(directory: Path) -> list[str]:
    return sorted(path.parent.name for path in directory.glob(f"*/{ORBAX_TREE}") if not _numbered(path.parent))


def _numbered(directory: Path) -> int | None:
    """The step of a directory called `5`, `00005` or `step_5`."""
    match = re.fullmatch(r"(?:[A-Za-z]+_)?(\d+)", directory.name)
    return int(match[1]) if match else None


def _steps(name: str, directory: Path) -> dict[int, Path]:
    """Committed step directories; RestoreError if there are only unfinished ones."""
    steps = {}
    unfinished = []
    for child in _subdirectories(directory):
        number = _numbered(child)
        if ORBAX_TEMPORARY in child.name or (number is not None and _unfinished(child)):
            unfinished.append(child.name)
        elif number is not None and _is_orbax(child):
            steps[number] = child
    if unfinished and not steps and not _is_orbax(directory):
        raise RestoreError(name, [f"no finished step, only {', '.join(unfinished)}; the saving run was cut off"])
    return steps


def _subdirectories(directory: Path) -> list[Path]:
    return [child for child in sorted(directory.iterdir()) if child.is_dir()]


def _orbax(name: str, directory: Path, own_module: bool, step: int | None) -> CheckpointPlace:
    problems = [] if own_module else _missing_companions(directory)
    problems += _unfinished(directory)
    tree = _tree(directory, problems)
    if problems:
        raise RestoreError(name, problems)
    root = directory / tree if tree else directory
    inside = {path.relative_to(directory).as_posix() for path in root.rglob("*") if path.is_file()}
    files = _sizes(directory, sorted(inside | set(_companions(directory))))
    return CheckpointPlace(name, "orbax", directory, files, tree, step)


def _tree(directory: Path, problems: list[str]) -> str | None:
    """The subdirectory that holds the tree, None for `directory` itself."""
    if (directory / ORBAX_TREE).is_file():
        problems += _broken_tree(directory)
        return None
    names = _tree_names(directory)
    chosen = next((name for name in TREE_NAMES if name in names), names[0] if len(names) == 1 else None)
    if chosen is not None:
        problems += _broken_tree(directory / chosen)
    elif names:
        problems.append(f"holds several trees ({', '.join(names)}); none is called {' or '.join(TREE_NAMES)}")
    else:
        problems.append(f"no {ORBAX_TREE} in it or below: the Orbax checkpoint is incomplete; save it again")
    return chosen


def _broken_tree(tree: Path) -> list[str]:
    merged = read_json(tree / ORBAX_TREE).get("use_ocdbt", True)
    if merged and not (tree / "manifest.ocdbt").is_file():
        return [f"{tree.name}/manifest.ocdbt is missing: the Orbax checkpoint is incomplete; copy or save it again"]
    return []


def _unfinished(directory: Path) -> list[str]:
    """Orbax writes the time of the commit last; a checkpoint whose root says none was never finished."""
    root = directory / ORBAX_ROOT
    if not root.is_file() or (directory / ORBAX_COMMITTED).is_file():
        return []
    if read_json(root).get("commit_timestamp_nsecs") is None:
        return ["the Orbax checkpoint was never committed (its save was cut off); use an earlier step or save again"]
    return []


def read_json(path: Path) -> dict[str, Any]:
    """A small optional JSON object; {} if there is no such file, RestoreError if it is not an object."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RestoreError(str(path), [f"is not JSON: {error}"]) from error
    if not isinstance(value, dict):
        raise RestoreError(str(path), ["is not a JSON object"])
    return value
