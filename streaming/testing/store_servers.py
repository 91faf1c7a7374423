"""Object stores for tests: real servers of pinned versions, fetched and built once, kept with the downloads.

`python -m streaming.testing.store_servers` is the part of `make test-services` that does it beforehand.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model.child_environment import child_environment
from agent.model.processes import one_at_a_time
from schemas.errors import MachineError
from streaming.home.settings import Settings
from streaming.output.terminal import say_line

LOCKS = Path(__file__).parent / "servers"
_BUILD_SECONDS = 1_800.0
# What says where packages come from, and with which login.
_OF_TOOLS = ("GO", "CGO_", "NPM_CONFIG_", "NODE_")


@dataclass(frozen=True)
class StoreServer:
    """A server that can be installed.

    Attributes:
        name: also that of the folder with its locks.
        tool: the program that installs it, `go` or `npm`.
        needs: that program in words.
        source: what is built: a Go package, or a script of an npm package.
    """

    name: str
    tool: str
    needs: str
    source: str

    @property
    def locks(self) -> Path:
        """Folder of the files that pin it and all that it is made of."""
        return LOCKS / self.name

    @property
    def digest(self) -> str:
        """Digest of its locks and of the machine that it is built for."""
        content = [each.read_bytes() for each in sorted(self.locks.iterdir())]
        machine = f"{platform.system()} {platform.machine()}".encode()
        return hashlib.sha256(b"\0".join([machine, *content])).hexdigest()


GOFAKES3 = StoreServer("gofakes3", "go", "Go 1.25", "github.com/johannesboyne/gofakes3/cmd/gofakes3")
VERSITYGW = StoreServer("versitygw", "go", "Go 1.25", "github.com/versity/versitygw/cmd/versitygw")
AZURITE = StoreServer("azurite", "npm", "Node.js 20 with npm", "azurite/dist/src/blob/main.js")
STORE_SERVERS = (GOFAKES3, VERSITYGW, AZURITE)


def installed(server: StoreServer, cache: Path) -> list[str]:
    """Return the command that starts a server, which is fetched and built unless it is there.

    Args:
        server: which one.
        cache: folder of downloads.

    Raises:
        MachineError: what builds it is not installed, or fails.
    """
    folder = cache.resolve() / "tests" / f"{server.name}-{server.digest[:16]}"
    with one_at_a_time(cache / "tests" / f"{server.name}.guard"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{server.name}-") as name:
                made = Path(name) / "made"
                _build_go(server, Path(name), made) if server.tool == "go" else _install_npm(server, made)
                made.rename(folder)
    if server.tool == "go":
        return [str(folder / server.name)]
    return [_found(server, "node"), str(folder / "node_modules" / server.source)]


def _build_go(server: StoreServer, scratch: Path, made: Path) -> None:
    """Build a program; the caches go with the scratch folder unless the environment names others."""
    module = scratch / "module"
    shutil.copytree(server.locks, module)
    caches = {"GOMODCACHE": str(scratch / "modules"), "GOCACHE": str(scratch / "cache")}
    made.mkdir()
    command = [_found(server, "go"), "build", "-mod=readonly", "-modcacherw", "-trimpath"]
    _run([*command, "-o", str(made / server.name), server.source], module, server, caches)


def _install_npm(server: StoreServer, made: Path) -> None:
    shutil.copytree(server.locks, made)
    command = [_found(server, "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
    _run(command, made, server, {"npm_config_cache": str(made.parent / "cache")})


def _found(server: StoreServer, program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise MachineError(
            f"the tests need {server.needs} for {server.name}, and there is no `{program}`: "
            "install it and run `make test-services` again"
        )
    return found


def _run(command: Sequence[str], folder: Path, server: StoreServer, caches: dict[str, str]) -> None:
    needed = [name for name in os.environ if name.upper().startswith(_OF_TOOLS) or _is_proxy(name)]
    environment = {**caches, **child_environment(needed=needed)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise MachineError(
            f"{server.name} of the tests could not be installed by `{Path(command[0]).name} {command[1]}`: "
            f"{' | '.join(said[-3:]) or 'it said nothing'}. It needs {server.needs} or newer and the network"
        )


def _is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy")


def main() -> None:
    """Install all servers; one that cannot be is named in a line, and its tests fail with the same line."""
    cache = Settings.load(Path("var")).cache
    for server in STORE_SERVERS:
        try:
            installed(server, cache)
        except MachineError as fault:
            say_line(str(fault))


if __name__ == "__main__":
    main()
