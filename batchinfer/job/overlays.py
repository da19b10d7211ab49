"""Python overlays: `configs/cpu.py[:argument]`, a file whose `get_config()` returns part of a job.

It returns an ml_collections ConfigDict (or a dict). A key `base` lists overlays, relative to the file, that come
before it.
The file runs by path, outside of the import system: nothing is put on sys.path or in sys.modules.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from batchinfer.errors import Fault, SpecError
from batchinfer.job.tree import Node, from_plain


def read_overlay(name: str) -> list[Node]:
    """The layers of one overlay, its bases first. Raises SpecError."""
    return _read(name, ())


def _read(name: str, trail: tuple[FilePath, ...]) -> list[Node]:
    file, argument = _cut(name)
    path = FilePath(file)
    resolved = path.resolve()
    if resolved in trail:
        circle = " -> ".join(_short(one) for one in (*trail[trail.index(resolved) :], resolved))
        raise SpecError([Fault(file, "base", f"overlays include each other in a circle: {circle}")])
    config = _plain(_call(path, argument), file)
    if not isinstance(config, dict):
        raise SpecError([Fault(file, "", f"get_config() should return a ConfigDict, got {type(config).__name__}")])
    bases = config.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, Sequence) or not all(isinstance(base, str) for base in bases):
        raise SpecError([Fault(file, "base", "should be a list of overlay files")])
    layers = [layer for base in bases for layer in _read(str(path.parent / base), (*trail, resolved))]
    return [*layers, from_plain(config, file)]


def _cut(name: str) -> tuple[str, str | None]:
    """`configs/x.py:a:b` is the file `configs/x.py` and the argument `a:b`."""
    head, suffix, argument = name.partition(".py:")
    file = f"{head}.py" if suffix else name
    if not file.endswith(".py"):
        raise SpecError(
            [Fault(f"--config={name}", "", "should be a Python file, configs/x.py or configs/x.py:argument")]
        )
    return file, argument if suffix else None


def _short(path: FilePath) -> str:
    return str(path.relative_to(FilePath.cwd())) if path.is_relative_to(FilePath.cwd()) else str(path)


def _call(path: FilePath, argument: str | None) -> Any:
    """What the file's get_config returns; whatever goes wrong inside is a fault at its line."""
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise SpecError([Fault(str(path), "", "there is no such overlay")]) from None
    except OSError as error:
        raise SpecError([Fault(str(path), "", f"cannot be read: {error.strerror}")]) from None
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), namespace)  # an overlay is code by design
        get_config = _get_config(path, namespace)
        arguments = _arguments(path, get_config, argument)
        return get_config(*arguments)
    except SpecError:
        raise
    except (Exception, SystemExit) as error:
        raise SpecError([_inside(path, error)]) from error


def _get_config(path: FilePath, namespace: Mapping[str, Any]) -> Callable[..., Any]:
    function = namespace.get("get_config")
    if not callable(function):
        raise SpecError([Fault(str(path), "", "has no function get_config()")])
    return function


def _arguments(path: FilePath, get_config: Callable[..., Any], argument: str | None) -> tuple[str, ...]:
    arguments = () if argument is None else (argument,)
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError:
        message = (
            f"get_config wants an argument: --config={path}:ARGUMENT"
            if argument is None
            else f'get_config takes no argument, but got "{argument}"'
        )
        raise SpecError([Fault(str(path), "", message)]) from None
    return arguments


def _inside(path: FilePath, error: BaseException) -> Fault:
    """The fault at the line of the overlay where `error` came up."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return Fault(f"{path}:{error.lineno}", "", f"is not Python: {error.msg}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f"{path}:{lines[-1]}" if lines else str(path)
    return Fault(place, "", f"{type(error).__name__}: {error}")


def _plain(value: Any, where: str) -> Any:
    """ConfigDicts as dicts, all the way down; placeholders become null."""
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item, where) for key, item in value.items()}
    if type(value).__module__.partition(".")[0] != "ml_collections":
        return value
    from ml_collections import config_dict

    if not isinstance(value, config_dict.ConfigDict):
        return value
    try:
        return {key: _plain(item, where) for key, item in value.items()}
    except config_dict.RequiredValueError as error:
        raise SpecError([Fault(where, "", f"a required placeholder has no value: {error}")]) from None
