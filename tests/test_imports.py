"""Imports point one way, from the scripts down to common/, and nowhere in a circle."""

import ast
from pathlib import Path

from tests.support import ROOT

COMMANDS = {"training", "checking", "evaluation", "prediction", "exporting"}
MAY_IMPORT = {  # folder → the others that its files may import
    **{folder: COMMANDS | {"dataset", "model", "common"} for folder in COMMANDS},
    "dataset": {"dataset", "common", "data_path"},
    "model": {"model", "common"},
    "common": {"common"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in MAY_IMPORT
    for path in (ROOT / folder).rglob("*.py")
}


def for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, where it is called too. Not those for its annotations alone."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
        for inner in ast.iter_child_nodes(node):
            if not for_types(inner):
                walk(inner)

    walk(ast.parse(path.read_text()))
    return found


def test_imports_point_one_way() -> None:
    ours = {*MAY_IMPORT, "data_path", *(path.stem for path in ROOT.glob("*.py"))}
    wrong = {
        f"{name} imports {module}"
        for name, path in FILES.items()
        for module in imports(path)
        if (folder := module.partition(".")[0]) in ours
        and folder not in MAY_IMPORT[name.partition(".")[0]]
    }
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {name.removesuffix(".__init__"): path for name, path in FILES.items()}
    below = {
        name: {each for each in imports(path) if each in files} for name, path in files.items()
    }
    while True:  # takes away what stands on nothing that is left
        leaves = {name for name, needed in below.items() if not needed & below.keys()}
        if not leaves:
            break
        below = {name: needed for name, needed in below.items() if name not in leaves}
    assert not below
