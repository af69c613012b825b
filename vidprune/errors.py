"""Errors that a user can act on: one line that says what was wrong, what was got, what is allowed and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidpruneError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""


class VideoDecodeError(VidpruneError):
    """A video file that yields no usable frame."""


class CheckpointError(VidpruneError):
    """A checkpoint whose keys, sizes or format do not fit the model it is loaded into."""


class ConfigError(VidpruneError, ValueError):
    """A value out of range or of the wrong kind in a configuration or an argument."""


class UnknownNameError(VidpruneError, KeyError):
    """A name that no registry knows; the message offers the nearest known ones."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class MissingDependencyError(VidpruneError, ImportError):
    """An optional package that is needed now and not installed."""


class UnsupportedModelError(VidpruneError, TypeError):
    """A model without what a method needs."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown `name` of a `kind`, with the nearest known names first."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known) or 'none'}")
