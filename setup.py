"""Packaging entry point; all metadata lives in pyproject.toml. The configurations, a folder of the repository, become part of
the package, where `vidgen.config.shipped` finds them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Also copies `configs/`; an editable installation finds the folder where it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "vidgen" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigurations})
