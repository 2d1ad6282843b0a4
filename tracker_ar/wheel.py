"""The step of the build that puts what stands at the top of the repository into the wheel, see `places.py`."""

from __future__ import annotations

from pathlib import Path

from setuptools.command.build_py import build_py

SHIPPED = ("trackers.ini", "constraints.txt", "checkpoints/README.md", "checkpoints/lite_*.safetensors",
           "workspace/**/*.yaml", "workspace/**/trackers.ini")


class BuildWithTheTop(build_py):
    """As setuptools', with `SHIPPED` in `tracker_ar/installed/`; an editable installation finds them at the top."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file in _shipped():
                target = Path(self.build_lib, "tracker_ar", "installed", file)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(file), str(target))

    def get_source_files(self) -> list[str]:
        """What a source distribution holds."""
        return [*super().get_source_files(), *map(str, _shipped())]


def _shipped() -> list[Path]:
    """Relative to the repository, in which a build runs. Sequences that were evaluated on have a folder of their own.
    """
    files = [file for pattern in SHIPPED for file in sorted(Path().glob(pattern))]
    return [file for file in files if not {"sequences", "results"} & set(file.parts)]
