"""Modules and functions stay small enough to be read at a glance."""

import ast
import statistics
from pathlib import Path

PROJECT = Path(__file__).parents[2]

MODULE_LINES = 400
FUNCTION_LINES = 50


def modules():
    """Lines of each module of aimd."""
    paths = sorted((PROJECT / "aimd").rglob("*.py"))
    return {path.relative_to(PROJECT).as_posix(): len(path.read_text().splitlines()) for path in paths}


def functions():
    """Lines of each function of aimd, signature and docstring included, decorators not."""
    lengths = {}
    for name in modules():
        for node in ast.walk(ast.parse((PROJECT / name).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths[f"{name}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    return lengths


def test_no_module_is_too_long():
    assert {name: lines for name, lines in modules().items() if lines > MODULE_LINES} == {}


def test_no_function_is_too_long():
    assert {name: lines for name, lines in functions().items() if lines > FUNCTION_LINES} == {}


def test_most_functions_are_short():
    ninth_decile = statistics.quantiles(functions().values(), n=10)[-1]
    assert ninth_decile < 30


def test_modules_are_about_a_hundred_lines():
    lengths = [lines for name, lines in modules().items() if not name.endswith("__init__.py")]
    assert statistics.median(lengths) <= 150
