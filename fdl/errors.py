"""The two errors that a user sees as one line, and text made fit for one. It imports nothing: a refusal must not wait for JAX."""

from __future__ import annotations


class UserError(Exception):
    """The user's input is at fault: main prints `fdl: error: <text>` on one line and exits with 2.

    The text says what is wrong, where, and how to fix it. `echo`: another process of the same run says it.
    """

    echo = False


class RunError(Exception):
    """The run failed although the input was right: one line, exit 1. `echo`: as UserError's."""

    echo = False


def printable(text: object, limit: int = 300) -> str:
    """Format `text` on one line: control and undecodable bytes as escapes, the middle left out beyond `limit`."""
    known = str(text)
    if len(known) > limit:
        known = f"{known[: limit // 2]}...{known[-limit // 3 :]}"
    known = known.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def one_line(error: object, limit: int = 300) -> str:
    """Format any library's error: runs of white space as one space, then `printable`; its type where it has no text."""
    return printable(" ".join(str(error).split()), limit) or type(error).__name__
