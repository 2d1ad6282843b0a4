"""Full disks, folders in which nothing can be written, and a run that is killed while it writes.

A limit on the size of files stands for the full disk; /proc, and a file in the place of a folder, stand for
one that is read-only: they stop the superuser as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from video_fixtures import box_option, write_images

from tracker_ar import cli
from tracker_ar.errors import CheckpointError
from tracker_ar.weights.store import write_checkpoint

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and limits")

ROOT = Path(__file__).resolve().parents[1]
TRACK = """\
import sys
from types import SimpleNamespace
sys.path[:0] = [{root!r}, {root!r} + "/tests/support"]
import video_fixtures
from tracker_ar.commands import track as command

class Tracker(video_fixtures.MovingBox):
    def track(self, image):
        {behaviour}
        return super().track(image)

try:
    sys.exit(command.run(video_fixtures.arguments(*sys.argv[1:]), lambda *_, **__: Tracker()))
except command.DataError as error:
    sys.exit(f"alpharefine track: {{error}}")
"""


def track(*words: object, behaviour: str = "pass", limit: int | None = None) -> subprocess.Popen:
    """`alpharefine track` with a stub tracker in a process of its own. limit: bytes that a file may have."""

    def restrict() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    program = TRACK.format(root=str(ROOT), behaviour=behaviour)
    return subprocess.Popen([sys.executable, "-c", program, *map(str, words)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=restrict if limit else None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "frames", 40)


@pytest.mark.parametrize("options", [[], ["--no-video"]], ids=["video", "no video"])
def test_tracking_onto_a_full_disk(source: Path, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "out"
    process = track(source, box_option(), "--out", out, *options, limit=1000)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be written (File too large)" in said and "free some space" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_tracking_that_is_killed_leaves_nothing_under_the_final_name(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = track(source, box_option(), "--out", out, behaviour="import time; time.sleep(0.1)")
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("out.unfinished-*/masks/00000003.png")) and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    assert not out.exists()
    assert [path.name for path in tmp_path.glob("out*")] == [f"out.unfinished-{process.pid}"]
    again = track(source, box_option(), "--out", out, "--no-video")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0 and out.is_dir()
    assert f"out.unfinished-{process.pid}" in said and "may be removed" in said


@pytest.mark.parametrize("place", ["/proc/alpharefine", "file/out"])
def test_tracking_into_a_folder_that_cannot_be_written(source: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    process = track(source, box_option(), "--out", tmp_path / place)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "cannot be written" in said and "--out" in said
    assert "Traceback" not in said


def test_checkpoint_onto_a_full_disk(tmp_path: Path) -> None:
    import resource

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, {"weight": torch.ones(3)}, "kind")
    whole = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write.*weights.safetensors.*File too large"):
            write_checkpoint(path, {"weight": torch.ones(30_000)}, "kind")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_training_onto_a_full_disk(tmp_path: Path) -> None:
    program = f"""
import resource, signal, sys
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "doubles")!r}]
import torch
from types import SimpleNamespace
from tracker_ar.errors import DataError
from tracker_ar.train.loop import Budget, Trainer
network = torch.nn.Linear(200, 200)
task = SimpleNamespace(name="task", kind="kind", network=network, half=None,
                       schedule=SimpleNamespace(learning_rate=1e-3, weight_decay=0.0),
                       parameter_groups=lambda: [dict(params=network.parameters())])
trainer = Trainer(task, Path({str(tmp_path / "run")!r}), Budget(steps=1))
trainer.save()
before = trainer.checkpoint_path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    trainer.save()
except DataError as error:
    print(error)
assert trainer.checkpoint_path.read_bytes() == before
print(*sorted(path.name for path in trainer.folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said, files = done.stdout.splitlines()
    assert "cannot write" in said and "checkpoint.pt" in said and "Free some space" in said
    assert files == "checkpoint.pt kind.safetensors"


def test_checkpoint_into_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/alpharefine"), tmp_path / "file"):
        with pytest.raises(CheckpointError, match="cannot write.*ALPHAREFINE_CHECKPOINTS"):
            write_checkpoint(folder / "weights.safetensors", {"weight": torch.ones(3)}, "kind")


@pytest.mark.parametrize("arguments", [
    ["sequences", "make", "--workspace"], ["evaluate", "--tracker", "StaticBox", "--workspace"],
], ids=["sequences", "evaluate"])
def test_workspaces_that_cannot_be_written(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*arguments, "/proc/alpharefine"]) == 1
    said = capsys.readouterr().err
    assert "/proc/alpharefine" in said and "choose another folder" in said and "Traceback" not in said


def test_synthetic_sequences_on_a_full_disk(tmp_path: Path) -> None:
    """Half a sequence is not listed, so that nobody evaluates on it, and the next run completes it."""
    program = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
               "from tracker_ar import cli; sys.exit(cli.main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", program, "sequences", "make", "--workspace", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "File too large. Free space" in done.stderr
    assert not (tmp_path / "sequences" / "list.txt").exists()


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    """`alpharefine checkpoints list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "tracker_ar.cli", "checkpoints", "list"], cwd=ROOT,
                          stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""
