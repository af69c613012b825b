"""What a run is: the facts that its predictions depend on, their digest, and the surroundings it ran in."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vidprune import __version__
from vidprune.errors import ConfigError

# Raised by one whenever a change to the code changes the predictions made under that protocol.
PROTOCOL_VERSIONS = {"videomae": 1, "mmaction": 1}
PLANES_VERSION = 2  # likewise, of runs that read planes (colour yuv): 2 keeps chroma at half the size
_PACKAGES = ("torch", "timm", "pytorchvideo", "av", "decord", "opencv-python-headless", "torchcodec", "numpy")


def digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of `facts` as canonical JSON."""
    return hashlib.sha256(_json(facts, sort_keys=True)).hexdigest()


def flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One "key: old -> new" per fact that differs, in order of name."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {_short(before.get(key, 'absent'))} -> {_short(after.get(key, 'absent'))}"
        for key in sorted(before.keys() | after.keys())
        if key not in before or key not in after or before[key] != after[key]
    ]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of a folder's model files (names and contents, in order of name)."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".bin", ".json"))
        return digest({file.name: file_sha256(file) for file in files})
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read weights {str(path)!r}: {error.strerror or error}") from None


def rows_sha256(rows: Iterable[tuple[Any, ...]]) -> str:
    """SHA-256 of rows in their order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(_json(row) + b"\n")
    return total.hexdigest()


def _json(value: Any, sort_keys: bool = False) -> bytes:
    """UTF-8; a file name's bytes that are none become escapes."""
    return json.dumps(value, sort_keys=sort_keys, ensure_ascii=False).encode(errors="backslashreplace")


def environment(device: str) -> dict[str, Any]:
    """Versions, device and source revision; recorded, never compared."""
    return {
        "vidprune": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device_name(device),
        "git": _git_revision(),
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that figures depend on, those that are installed."""
    return {name: version for name in _PACKAGES if (version := _version(name)) is not None}


def _short(value: Any, limit: int = 48) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or device


def _git_revision() -> str | None:
    """The commit of the checkout this package runs from, "+" appended where files differ from it; None outside one."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(package)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
