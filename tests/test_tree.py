"""The tree stays readable: sizes, folders and first lines, each with the exceptions that have a reason."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sfumato"
LINES, BODY, FILES = 400, 60, 20

REASONS: dict[str, str] = {}
"""`file:function` of functions over 60 lines, with the reason."""


def modules(*also):
    return sorted(path for base in (PACKAGE, ROOT / "benchmarks", *also) for path in base.rglob("*.py"))


def body(node):
    """Lines of a function without its docstring."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return node.end_lineno - first.lineno + 1


def long_functions(source, where):
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f"{where}:{n.name}": body(n) for n in functions if body(n) > BODY}


def test_no_file_is_over_400_lines():
    files = modules(ROOT / "tests", ROOT / "scripts", ROOT / "docs" / "_ext")
    assert {str(p.relative_to(ROOT)): n for p in files if (n := p.read_text().count("\n")) > LINES} == {}


def test_no_function_is_over_60_lines_without_a_reason():
    found = {name for p in modules() for name in long_functions(p.read_text(), p.relative_to(ROOT).as_posix())}
    assert found == set(REASONS)


def test_the_measure_sees_a_long_function():
    """Negative control."""
    assert long_functions("def f():\n" + "    x = 1\n" * 61, "f.py") == {"f.py:f": 61}
    assert long_functions('def f():\n    """' + "a\n" * 70 + '    """\n' + "    x = 1\n" * 60, "f.py") == {}


def test_no_folder_holds_more_than_20_files():
    counts = {p: len([f for f in p.glob("*.py") if f.name != "__init__.py"]) for p in PACKAGE.rglob("*") if p.is_dir()}
    # a row is one file and a family one folder: their number is the literature's
    counts = {str(p.relative_to(PACKAGE)): n for p, n in counts.items() if n > FILES and "atlas" not in p.parts}
    assert counts == {}


def test_every_module_says_in_its_first_line_what_it_is():
    firsts = {p: (ast.get_docstring(ast.parse(p.read_text())) or "").split("\n")[0] for p in modules()}
    assert [str(p) for p, first in firsts.items() if len(first) < 15] == []


def test_every_room_of_the_architecture_exists_and_the_other_way_round():
    named = set(re.findall(r"^\| ((?:`[\w./]+` ?)+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.M))
    rooms = {name.rstrip("/") for group in named for name in re.findall(r"`([\w./]+)`", group)}
    there = {p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms == there - {"__init__.py", "__main__.py"}
