"""A few hundred of the cases of `fuzz.py`, and what holds for every client: the fast part of the fuzzing."""

from __future__ import annotations

import random
import re
from pathlib import Path
from types import SimpleNamespace

import fuzz_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vot_wrapper import gate
from vot_wrapper.gate import PREFIX, QUIT, REFUSED, RequestGate, problem_with

BUDGET = {"regions": 1500, "protocol": 250, "geometry": 500, "checkpoints": 250}
GOOD = [b'@@TRAX:initialize "4.0,6,8,10"', b'@@TRAX:frame "file:///a b/\\"c\\".jpg" "key=\\n"', b"@@TRAX:quit ",
        b"@@TRAX:initialize", b'@@TRAX:initialize "mask:4,-5,2,3,0,6" "k=v"', b'@@TRAX:initialize "1,2,3,4"\r']


@pytest.mark.parametrize("kind", BUDGET)
def test_cases(kind: str) -> None:
    with fuzz_cases.running(kind) as run:
        for number in range(BUDGET[kind]):
            try:
                run(fuzz_cases.randomness(kind, 0, number))
            except Exception as error:
                raise AssertionError(f"python tests/fuzz.py {kind} --first {number} --cases 1") from error


def test_code_that_is_executed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A careless reader runs the malicious files; the watch sees it."""
    import torch

    from tracker_ar.weights import containers as checkpoint_files

    def careless(path: object) -> object:
        return SimpleNamespace(state_dict=torch.load(path, weights_only=False)["net"])

    live = fuzz_cases.checkpoint_files(tmp_path / "executed")[-1]
    monkeypatch.setattr(fuzz_cases, "checkpoint_files", lambda marker: [live])
    with fuzz_cases.running("checkpoints") as run:
        run(fuzz_cases.randomness("checkpoints", 0, 0))
    monkeypatch.setattr(checkpoint_files, "read_checkpoint", careless)
    monkeypatch.setattr(fuzz_cases, "mutation", lambda random, content, payloads: content)
    with pytest.raises(SystemError, match="pickle.find_class|os.mkdir"), fuzz_cases.running("checkpoints") as run:
        run(fuzz_cases.randomness("checkpoints", 0, 0))
    assert (tmp_path / "executed").is_dir()  # by the first reading, before the watch began


# ---- the gate


@pytest.mark.parametrize("line", GOOD)
def test_what_clients_send_passes(line: bytes) -> None:
    assert problem_with(line) == ""


@pytest.mark.parametrize(("line", "cause"), [
    (b'@@TRAX:initialize ""', "empty"), (b'@@TRAX:initialize " "', "empty"),
    (b'@@TRAX:initialize "\x001,2,3,4"', r"cannot be read.*\\x001,2,3,4"),
    (b'@@TRAX:initialize "mask:0,0,-3,3,1"', "impossible size"),
    (b'@@TRAX:initialize "mask:0,0,65536,65537,0,9"', "impossible size"),
    (b'@@TRAX:initialize "mask:0,0,3,3,0,10"', "more runs than pixels"),
    (b'@@TRAX:initialize "mask:2147483647,0,3,3,0,9"', "impossible size"),
    (b'@@TRAX:initialize "1,2,3,4" "5,6,7,8"', "2 regions"),
    (b'@@TRAX:initialize "1,2', "cannot be read"), (b"@@TRAX:", "cannot be read"),
    (b'@@TRAX:frame "http://x/y.jpg"', "one image"), (b"@@TRAX:frame", "one image"),
    (b'@@TRAX:frame "file:///caf\xc3\xa9.jpg"', "beyond ASCII.*plain names"), (b"@@TRAX:hello", "'hello'"),
])
def test_what_libtrax_cannot_take_is_refused(line: bytes, cause: str) -> None:
    taken = RequestGate()
    assert taken.feed(line + b"\n" + GOOD[0] + b"\n") == REFUSED
    assert re.search(cause, taken.refusal) and taken.closed


@settings(max_examples=150)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(GOOD)), max_size=8), st.integers(1, 40))
def test_it_does_not_matter_how_bytes_are_cut(lines: list[bytes], step: int) -> None:
    said = b"\n".join(lines)
    at_once, in_pieces = RequestGate(), RequestGate()
    expected = at_once.feed(said) if said else b""
    if not at_once.closed:
        expected += at_once.feed(b"")
    passed, position = b"", 0
    while not in_pieces.closed:
        passed += in_pieces.feed(said[position : position + step])
        position += step
    assert (passed, in_pieces.refusal) == (expected, at_once.refusal)
    *requests, last = passed.splitlines(keepends=True)
    assert last in (QUIT, REFUSED)
    assert all(line.startswith(PREFIX) and line.isascii() and not problem_with(line[:-1]) for line in requests)


@pytest.mark.parametrize(("beginning", "refused"), [(b"@@TRAX:frame ", True), (b"noise ", False)])
def test_lines_without_end(beginning: bytes, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_BYTES", 1 << 20)
    taken = RequestGate()
    passed = taken.feed(beginning) + b"".join(taken.feed(b"a" * 65536) for _ in range(20) if not taken.closed)
    assert taken.closed == refused and ("over 1 MiB" in taken.refusal) == refused
    assert len(taken._unfinished) < (1 << 20) + 65536
    if not refused:
        passed += taken.feed(b"\n@@TRAX:frame \"file:///a.jpg\"\n")
    assert passed == (REFUSED if refused else b'@@TRAX:frame "file:///a.jpg"\n')


def test_a_long_mask_passes() -> None:
    runs = ",".join("1" for _ in range(500_000))
    assert problem_with(f'@@TRAX:initialize "mask:0,0,1000,1000,{runs}"'.encode()) == ""


def test_cases_are_the_same_every_time() -> None:
    one, other = (fuzz_cases.conversation(fuzz_cases.randomness("protocol", 3, 7)) for _ in range(2))
    assert one == other and isinstance(fuzz_cases.randomness("protocol", 3, 7), random.Random)
