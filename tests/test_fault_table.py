"""Every row of the table of faults names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = (TESTS / "FAULTS.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]


def defined_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_row_names_tests_that_exist(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 4 and all(cells)
    found = NAMED.findall(cells[3])
    assert found and NAMED.sub("", cells[3]).strip(" ,") == ""
    for file, name in found:
        assert name.startswith("test_") and name in defined_in(TESTS / file), f"{file}::{name}"


def test_the_table_is_complete() -> None:
    """As many rows as were written, in sections; and each file of faults has all its tests in the table."""
    assert len(ROWS) > 35
    named = set(NAMED.findall(TABLE))
    for file in (*TESTS.glob("test_faults_*.py"), TESTS / "e2e/test_faults.py"):
        missing = {name for name in defined_in(file) if name.startswith("test_")}
        missing -= {name for other, name in named if other == file.relative_to(TESTS).as_posix()}
        assert not missing, f"{file.name}: {missing}"
