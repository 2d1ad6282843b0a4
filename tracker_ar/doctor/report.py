"""Rows of the doctor's report, and how they are shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tracker_ar.places import how_to_install

OK, WARNING, FAILED = "OK", "WARNING", "FAILED"


@dataclass(frozen=True)
class Row:
    """One check.

    name: what was looked at. state: OK, WARNING (works, or works in part) or FAILED. found: what there is, in
    one line. cause, fix: why it is not OK and what to do; given unless it is OK, may have several lines.
    """

    name: str
    state: str
    found: str
    cause: str = ""
    fix: str = ""


def ok(name: str, found: str) -> Row:
    """A row for what is as it should be, or for information only."""
    return Row(name, OK, found)


def warning(name: str, found: str, cause: str, fix: str) -> Row:
    """A row for what does not keep the project from working."""
    return Row(name, WARNING, found, cause, fix)


def failed(name: str, found: str, cause: str, fix: str) -> Row:
    """A row for what does keep it from working."""
    return Row(name, FAILED, found, cause, fix)


Examination = Callable[[], Iterable[Row]]


def examine(name: str, examination: Examination) -> list[Row]:
    """The rows of one group of checks; an error in it becomes a row and leaves the others alone."""
    rows = []
    try:
        for row in examination():
            rows.append(row)
    except Exception as error:
        rows.append(failed(name, "could not be looked at", f"{type(error).__name__}: {error}",
                           "Fix the rows above first; as a rule the cause is an incomplete installation: "
                           + how_to_install()))
    return rows


def exit_status(rows: Iterable[Row]) -> int:
    """0 when nothing failed, else 1."""
    return int(any(row.state == FAILED for row in rows))


def as_text(row: Row) -> str:
    """A line, and under it cause and fix where the row is not OK."""
    lines = [f"{row.state:<8} {row.name}: {row.found}"]
    if row.state != OK:
        lines += _block("cause", row.cause) + _block("fix", row.fix)
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """How many checks came out how, in one line."""
    count = {state: sum(row.state == state for row in rows) for state in (OK, WARNING, FAILED)}
    return f"{len(rows)} checks: {count[OK]} OK, {count[WARNING]} WARNING, {count[FAILED]} FAILED"


def as_json(rows: list[Row]) -> str:
    """The report for machines: `passed`, and under `checks` the fields of every `Row`."""
    return json.dumps({"passed": exit_status(rows) == 0, "checks": [dataclasses.asdict(row) for row in rows]},
                      indent=2)


def _block(label: str, text: str) -> list[str]:
    first, *more = text.splitlines() or [""]
    return [f"{'':9}{label + ':':<7}{first}", *(f"{'':16}{line}" for line in more)]
