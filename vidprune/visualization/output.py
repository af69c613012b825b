"""Writing files whole or not at all: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vidprune.errors import ConfigError, VidpruneError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` with its suffix; renames it on success, removes it on failure.

    Raises:
        VidpruneError: the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600, which others could not read
        temporary.replace(path)
    except OSError as error:  # PyAV's errors from the file system are OSErrors too
        raise VidpruneError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a PNG and return its path. Raises `VidpruneError` where it cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"a picture is written as .png, got {path.name!r}")
    with written_whole(path) as temporary:
        picture.save(temporary, format="PNG")
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
