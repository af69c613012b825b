"""The files around the code agree with it: commands, versions, bounds, package data, the example that users copy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import vidprune

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "vidprune"
TEST_COMMAND = "pip install -c constraints.txt '.[test]' && pytest"


def read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def project() -> dict[str, object]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def code_blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(name), flags=re.MULTILINE | re.DOTALL)


def package_data() -> list[str]:
    """Paths of the files under vidprune/ that are no Python, relative to the checkout."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(str(path.relative_to(CHECKOUT)) for path in files if path.suffix not in (".py", ".pyc"))


# ---- commands


def test_readme_and_ci_give_the_same_test_command() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    done = subprocess.run(
        ["bash", str(CHECKOUT / ".ci/run"), "--print-test-command"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, TEST_COMMAND), done.stderr


def test_ci_is_executable_and_stops_at_the_first_failure() -> None:
    assert os.access(CHECKOUT / ".ci/run", os.X_OK)
    assert "set -euo pipefail" in read(".ci/run")


def test_hooks_fetch_nothing() -> None:
    import yaml

    for repository in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]:
        assert repository["repo"] == "local"
        assert {hook["language"] for hook in repository["hooks"]} == {"system"}


# ---- versions and bounds


def test_one_version_everywhere() -> None:
    latest = re.search(r"^## \[(\d.*?)\]", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert latest is not None
    assert project()["version"] == vidprune.__version__ == latest.group(1)


def test_pins_lie_inside_the_bounds() -> None:
    lines = [line.partition("#")[0].strip() for line in read("constraints.txt").splitlines()]
    pins = {name.lower(): version for name, _, version in (line.partition("==") for line in lines if line)}
    extras = project()["optional-dependencies"]
    bounds = [Requirement(text) for text in project()["dependencies"]]
    bounds += [Requirement(text) for extra in extras.values() for text in extra]
    assert {"torch", "torchvision", "timm", "ruff", "mypy", "pytest"} <= set(pins)
    for bound in bounds:
        if bound.name in pins:
            assert pins[bound.name] in bound.specifier, (
                f"constraints.txt pins {bound.name}=={pins[bound.name]}: {bound}"
            )


def test_torch_and_torchvision_have_upper_bounds() -> None:
    for text in project()["dependencies"]:
        bound = Requirement(text)
        if bound.name in ("torch", "torchvision"):
            assert any(part.operator == "<" for part in bound.specifier), f"{bound} would let a CUDA stack in"


# ---- package and data


def test_tests_import_the_checkout() -> None:
    assert Path(vidprune.__file__).parent == PACKAGE


def test_every_public_name_resolves() -> None:
    for name in vidprune.__all__:
        assert getattr(vidprune, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vidprune.no_such_name


def test_package_data_is_inside_what_the_wheel_takes_and_tracked() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["vidprune"]}  # everything under vidprune/, no exclusions
    assert "vidprune/data/labels/kinetics400.txt" in package_data()
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    # An ignored file would be missing in a fresh clone, and hatchling leaves ignored files out of the wheel.
    command = ["git", "-c", "safe.directory=*", "check-ignore", "--no-index", *package_data()]
    ignored = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (ignored.returncode, ignored.stdout) == (1, ""), ignored.stderr


def test_an_installed_copy_holds_the_package_data() -> None:
    try:
        installed = importlib.metadata.distribution("vidprune")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vidprune is not installed here")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable install has no files of its own")
    files = {str(path) for path in installed.files or ()}
    missing = [path for path in package_data() if path not in files]
    assert missing == [], "the wheel lacks them, or they are newer than the installed copy: pip install ."


# ---- CONTRIBUTING.md


def test_the_layer_table_is_the_one_enforced() -> None:
    spec = importlib.util.spec_from_file_location("layers_of_the_test", Path(__file__).with_name("test_layers.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = re.findall(r"^\| (\d) \| (.*?) \|", read("CONTRIBUTING.md"), flags=re.MULTILINE)
    written = {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert written == module.LAYERS


USE_THE_EXAMPLE = """
import torch, vidprune as vp
from vidprune.models import create_model
clip = torch.zeros(2, 3, 8, 112, 112)
clip[:, :, :, 16:48, 32:64] = torch.randn(2, 1, 8, 32, 32)  # the only texture: grid rows 1-2, columns 2-3
model = create_model("videomae_tiny", num_classes=5).eval()
pruned = vp.prune(model, vp.PaPr(keep_ratio=0.06, proposal="local_contrast"))
with torch.no_grad():
    logits, trace = pruned.forward_with_trace(clip)
assert logits.shape == (2, 5)
places = {(int(i) % 49 // 7, int(i) % 7) for i in trace.kept_index.flatten()}
assert trace.kept_index.shape == (2, 11), trace.kept_index.shape
assert places <= {(1, 2), (1, 3), (2, 2), (2, 3)}, places
print("kept", vp.create_proposal("local_contrast").description)
"""


USE_THE_PRUNER = """
import torch, vidprune as vp
from vidprune.config import build_method
from vidprune.models import create_model
model = create_model("videomae_tiny", num_classes=5).eval()
clip = torch.randn(2, 3, 8, 112, 112)
with torch.no_grad():
    assert torch.equal(vp.prune(model, build_method({"name": "outliers", "keep_ratio": 1.0}))(clip), model(clip))
    _, trace = vp.prune(model, build_method({"name": "outliers", "keep_ratio": 0.25})).forward_with_trace(clip)
    tokens = model._pos_embed(model.patch_embed(clip))
for sample, kept in zip(tokens.double().numpy(), trace.kept_index.numpy()):
    far = ((sample - sample.mean(axis=0)) ** 2).sum(axis=1)
    assert set(kept) == set(far.argsort()[-49:]), kept
from vidprune.pruners import METHODS
print("kept", METHODS.describe("outliers"))
"""
EXAMPLES = {  # in order of their places in the text: entry point group, what uses it
    "my_proposals": ("vidprune.proposals", USE_THE_EXAMPLE),
    "outliers": ("vidprune.methods", USE_THE_PRUNER),
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_an_example_works_from_another_package(module: str, tmp_path: Path) -> None:
    place = list(EXAMPLES).index(module)
    group, use = EXAMPLES[module]
    points = tomllib.loads(code_blocks("CONTRIBUTING.md", "toml")[place])["project"]["entry-points"][group]
    (tmp_path / f"{module}.py").write_text(code_blocks("CONTRIBUTING.md", "python")[place])
    metadata = tmp_path / f"{module}-1.0.dist-info"
    metadata.mkdir()
    package = module.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", use], env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"kept from {package}"


@pytest.mark.parametrize(("place", "lines"), [(0, 15), (1, 20)])
def test_an_example_is_short_enough_to_copy(place: int, lines: int) -> None:
    example = code_blocks("CONTRIBUTING.md", "python")[place]
    body = [line for line in example[example.index("class ") :].splitlines() if line.strip()]
    assert len(body) <= lines
