"""Finds what somebody probably meant. Knows only words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, None if none is like it."""
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to put behind a message, "" if there is nothing to say: ` (did you mean max_rows?)`."""
    found = closest(word, known)
    return f" (did you mean {found}?)" if found else ""
