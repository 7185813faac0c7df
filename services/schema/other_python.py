"""Another Python than rayzero's, with packages of its own. It need not have rayzero: what it runs is given as files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
"""The folder `rayzero`."""
PATIENCE_S = 60.0
_LOAD = """\
import importlib.util, json, sys
sys.path[:1] = []
sys.path += json.loads(sys.argv[1])
for name, path in json.loads(sys.argv[2]).items():
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
"""
_ASK = """\
import json, sys
from importlib import metadata
try:
    version = metadata.version(sys.argv[1])
except metadata.PackageNotFoundError:
    version = ""
print(json.dumps([sys.version_info[0], version]))
"""
_ITS_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that belong to this Python, not to another."""


@dataclass(frozen=True, slots=True)
class OtherPython:
    """An interpreter, by its path."""

    path: str
    folders: tuple[str, ...] = ()
    """Where it finds modules besides: behind all that is installed there."""

    def command(self, modules: Sequence[str], call: str, *arguments: str) -> list[str]:
        """What starts it: `modules`, rayzero's by name, each of which imports none but those before it, are loaded from
        their files; then `call`, a statement, is run with the arguments in `sys.argv[3:]`."""
        files = {name: str(PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")) for name in modules}
        folders = [os.path.abspath(os.path.expanduser(folder)) for folder in self.folders]
        return [self.program, "-c", _LOAD + call, json.dumps(folders), json.dumps(files), *arguments]

    @property
    def program(self) -> str:
        """Its path, whole."""
        path = os.path.expanduser(self.path)
        return os.path.abspath(path) if os.sep in path else path

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Of its process: without what belongs to this Python."""
        return {name: value for name, value in variables.items() if name not in _ITS_OWN}

    def fault(self, package: str, wanted: str) -> str:
        """What is wrong with it, with the remedy; empty where it has such a version of the package."""
        remedy = f"pip install {package}=={wanted}"
        release = wanted.rpartition(".")[0]
        try:
            asked = subprocess.run(
                [self.program, "-c", _ASK, package], capture_output=True, timeout=PATIENCE_S, check=False,
                stdin=subprocess.DEVNULL, env=self.environment(os.environ),
            )  # fmt: skip
            major, version = json.loads(asked.stdout)
        except OSError as error:
            return (
                f"{self.path} cannot be started ({error.strerror}): name the Python of a virtual environment, made "
                f"with python3 -m venv FOLDER and FOLDER/bin/{remedy}"
            )
        except (ValueError, TypeError):
            return f"{self.path} is no Python: name bin/python of a virtual environment that has {package} {wanted}"
        except subprocess.TimeoutExpired:
            return f"{self.path} said nothing within {PATIENCE_S:g} s: name bin/python of a virtual environment"
        if major < 3 or not version:
            return f"{self.path} has no package {package}: {self.path} -m {remedy}"
        if not f"{version}.".startswith(f"{release}."):
            return f"{self.path} has {package} {version}, and {release} is needed: {self.path} -m {remedy}"
        return ""
