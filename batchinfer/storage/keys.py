"""Globs over object stores, where a "directory" is only a prefix that keys share.

The same rules as on a local disk (see Storage.list). Knows nothing of any store.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

_WILD = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")
_HIDDEN = (".", "_")


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """Which keys a pattern asks for. `prefix`: what they all begin with; `flat`: none has a "/" after `root`."""

    prefix: str
    root: str
    wild: tuple[str, ...]

    @property
    def flat(self) -> bool:
        return len(self.wild) == 1 and self.wild[0] != "**"

    def matches(self, key: str) -> bool:
        if not key.startswith(self.prefix) or key.endswith("/"):  # "x/" stands for an empty directory
            return False
        return _match(tuple(key[len(self.root) :].split("/")), self.wild)


def parse_pattern(pattern: str) -> KeyPattern:
    """The key part of a glob; without wildcards it is a directory: everything below it."""
    parts = pattern.split("/")
    plain = [_ESCAPED.sub(r"\1", part) if not _WILD.search(_ESCAPED.sub("", part)) else None for part in parts]
    cut = next((i for i, part in enumerate(plain) if part is None), None)
    if cut is None:
        directory = "/".join(part for part in plain if part is not None).rstrip("/")
        root = f"{directory}/" if directory else ""
        return KeyPattern(root, root, ("**",))
    root = "".join(f"{part}/" for part in plain[:cut])
    return KeyPattern(root + _literal_head(parts[cut]), root, tuple(parts[cut:]))


def _literal_head(part: str) -> str:
    """What every name that matches begins with."""
    head = ""
    while part:
        if escaped := _ESCAPED.match(part):
            head, part = head + escaped[1], part[escaped.end() :]
        elif _WILD.match(part):
            break
        else:
            head, part = head + part[0], part[1:]
    return head


def _match(names: tuple[str, ...], wild: tuple[str, ...]) -> bool:
    if not wild or not names:
        return not wild and not names
    head, rest = wild[0], wild[1:]
    if names[0].startswith(_HIDDEN) and names[0][0] != head[:1]:
        return head == "**" and bool(rest) and _match(names, rest)
    if head == "**":
        last = len(names) == 1
        return (not rest and last) or (bool(rest) and _match(names, rest)) or (not last and _match(names[1:], wild))
    return fnmatch.fnmatchcase(names[0], head) and _match(names[1:], rest)
