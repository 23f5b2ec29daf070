"""Imports between the layers go one way only, so that a device needs the lowest alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down; what stands in one row does not import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("export", "page", "training"),
    ("bench", "choosing"),
    ("checking",),
    ("evaluation", "reference", "scores", "kept"),
    ("data", "checkpoint", "quantizers"),
    ("models",),
    ("errors",),
    ("runtime",),
    ("__init__",),
)
PLACES = {name: place for place, names in enumerate(LAYERS) for name in names}

PACKAGE = sorted(
    path
    for folder in ("vit_edge", "export", "runtime")
    for path in (ROOT / folder).rglob("*.py")
    if not (folder == "vit_edge" and path.relative_to(ROOT / folder).parts[0] in ("export", "runtime"))
)


def home(path: Path) -> tuple[str, ...]:
    """Give a file's module name in parts: ``("vit_edge", "export", "trace")``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts if parts[0] == "vit_edge" else ("vit_edge", *parts)


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Give the modules of this package that a file imports, wherever in it: ``("vit_edge", "runtime", "image")``."""
    here = home(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            # `from . import x` imports the module x, `from .x import y` a name of it.
            yield from ((*module, alias.name) for alias in node.names)


def layer(module: tuple[str, ...]) -> str:
    return module[1] if len(module) > 1 and module[1] in PLACES else "__init__"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    """A runtime that imports the workshop brings torch to the device, and a circle breaks at the first import."""
    own = layer(home(path))
    for module in imported(path):
        if module[0] == "vit_edge" and layer(module) != own:
            assert PLACES[layer(module)] > PLACES[own], f"{own} imports {'.'.join(module)}"


def test_every_part_of_the_package_has_its_layer() -> None:
    """A new folder that no layer names would escape the rule."""
    assert {layer(home(path)) for path in PACKAGE} == set(PLACES)
    parts = {home(path)[1] for path in PACKAGE}
    assert parts == set(PLACES)


def test_the_rule_sees_an_arrow_that_points_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that finds nothing anywhere proves nothing."""
    monkeypatch.setattr("tests.test_architecture.ROOT", tmp_path)
    path = tmp_path / "runtime" / "new.py"
    path.parent.mkdir()
    path.write_text(
        "def f():\n    from ..export.trace import trace\n    import vit_edge.data\n    from . import image\n"
    )
    assert set(imported(path)) == {
        ("vit_edge", "export", "trace", "trace"),
        ("vit_edge", "data"),
        ("vit_edge", "runtime", "image"),
    }
    with pytest.raises(AssertionError, match=r"runtime imports vit_edge\.export"):
        test_imports_go_down_only(path)


def test_the_package_is_imported_by_one_name() -> None:
    """`runtime` and `export` at the top are folders, not packages of their own: two copies of a class differ."""
    for path in PACKAGE:
        for module in imported(path):
            assert module[0] not in ("runtime", "export"), f"{path} imports {'.'.join(module)}"
