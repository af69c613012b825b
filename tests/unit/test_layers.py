"""The layers of the package: a module imports its own layer or lower. Every import of every file is read."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vidprune"

LAYERS: dict[str, int] = {
    "types": 0,
    "errors": 0,
    "registry": 0,
    "compat": 0,
    "tokens": 1,
    "video": 1,
    "weights_io": 1,
    "labels": 1,
    "models": 2,
    "proposals": 2,
    "pruners": 2,
    "hierarchical": 3,
    "pruning": 3,
    "inference": 4,
    "compiling": 4,
    "calibration": 4,
    "evaluation": 4,
    "profiling": 4,
    "visualization": 4,
    "config": 5,
    "demo": 5,
    "flops_table": 5,
    "runs": 5,
    "cli": 6,
    "__main__": 6,
}
FACADE = "__init__"  # vidprune/__init__.py: names everything lazily; inside, only its version is imported
VERSION = "__version__"
TOKENS_MAY_IMPORT = {"torch", "numpy", "vidprune"} | sys.stdlib_module_names


def imported_modules(tree: ast.Module, package_parts: list[str], package: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a file, inside functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: climb from the file's own package
                base = ".".join([*package_parts[: len(package_parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                # `from vidprune import video` names a module; `from vidprune import predict_video` goes by the facade.
                named = base == "vidprune" and alias.name in top_level_modules(package) | {VERSION}
                yield node.lineno, f"{base}.{alias.name}" if named else base


def top_level_modules(package: Path) -> set[str]:
    """The names of the modules and packages directly under the package, the facade apart."""
    found = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    return found - {FACADE}


def violations(package: Path) -> list[str]:
    """One line per import that breaks the layers, and per module that no layer lists."""
    problems = [f"{name}: in no layer; add it to LAYERS" for name in sorted(top_level_modules(package) - set(LAYERS))]
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        top = parts[0]
        if parts == (FACADE,) or top not in LAYERS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, name in imported_modules(tree, ["vidprune", *parts[:-1]], package):
            if problem := judge(top, name):
                problems.append(f"{path.relative_to(package)}:{line}: {problem}")
    return problems


def judge(importer: str, imported: str) -> str | None:
    """What is wrong with a file of the top-level module `importer` importing `imported`, or None."""
    root, _, rest = imported.partition(".")
    target = rest.split(".")[0]
    if root != "vidprune":
        if importer == "tokens" and root not in TOKENS_MAY_IMPORT:
            return f"tokens is pure tensor maths and must not import {root}"
        return None
    if not target:
        return "imports the facade vidprune; import the module that owns the name"
    if target == VERSION:
        return None
    if target not in LAYERS:
        return f"imports vidprune.{target}, which is in no layer"
    if importer == "tokens" and target != "tokens" and LAYERS[target] != 0:
        return f"tokens may import only itself and layer 0, not vidprune.{target}"
    if LAYERS[target] > LAYERS[importer]:
        return f"layer {LAYERS[importer]} ({importer}) imports layer {LAYERS[target]} ({target})"
    return None


def test_the_package_keeps_its_layers() -> None:
    assert top_level_modules(PACKAGE) >= {"types", "errors", "models", "pruning"}  # the walk did find the package
    assert violations(PACKAGE) == []


PLANTED = {
    "upward": ("video/decode.py", "from vidprune.models.videomae import VideoMAE\n", "layer 1 (video) imports layer 2"),
    "in_function": ("pruning.py", "def f():\n    import vidprune.inference\n", "pruning.py:2: layer 3"),
    "type_checking": (
        "types.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vidprune.labels import class_names\n",
        "types.py:3: layer 0 (types) imports layer 1 (labels)",
    ),
    "relative": ("models/load.py", "from ..cli import main\n", "layer 2 (models) imports layer 6 (cli)"),
    "relative_package": (
        "models/__init__.py",
        "from .. import pruning\n",
        "layer 2 (models) imports layer 3 (pruning)",
    ),
    "module_by_facade": ("video/a.py", "from vidprune import pruning\n", "layer 1 (video) imports layer 3 (pruning)"),
    "facade": ("inference.py", "from vidprune import predict_video\n", "imports the facade"),
    "facade_import": ("inference.py", "import vidprune as vp\n", "imports the facade"),
    "unlisted_module": ("helpers.py", "x = 1\n", "helpers: in no layer"),
    "unlisted_package": ("utils/__init__.py", "x = 1\n", "utils: in no layer"),
    "unlisted_target": ("inference.py", "import vidprune.helpers\n", "in no layer"),
    "tokens_library": ("tokens/score.py", "import timm\n", "must not import timm"),
    "tokens_sibling": ("tokens/score.py", "import vidprune.video\n", "only itself and layer 0"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_caught(tmp_path: Path, name: str) -> None:
    file, source, message = PLANTED[name]
    write_tree(tmp_path, {"pruning.py": "", file: source})
    problems = violations(tmp_path)
    assert len(problems) == 1
    assert message in problems[0]


def test_allowed_imports_pass(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "__init__.py": "from vidprune.cli import main\n",
            "tokens/select.py": "import math\nimport numpy as np\nimport torch\nimport vidprune.types\n",
            "tokens/reduce.py": "from .select import topk\nfrom vidprune.tokens.select import topk\n",
            "inference.py": "import timm\nfrom vidprune import pruning\nfrom vidprune.video.decode import read_video\n",
            "pruning.py": "",
            "cli/app.py": "from vidprune import __version__\n",
            "cli/main.py": "from vidprune.config import load\nfrom ..inference import predict_video\n",
        },
    )
    assert violations(tmp_path) == []


def write_tree(package: Path, files: dict[str, str]) -> None:
    for file, source in files.items():
        path = package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        if path.parent != package:
            (path.parent / "__init__.py").touch()
