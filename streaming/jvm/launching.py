"""Starts Spark's JVM: at once, by one command, so that it comes up beside Python's imports.

PySpark starts it through two shells, a Python and a second JVM, which only put this command together, and
waits for it. Nothing here imports PySpark.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.model.child_environment import child_environment
from schemas.errors import MachineError
from streaming.home.settings import find_java
from streaming.home.user import is_known, user_name

# What Spark's own launcher gives every JVM from version 17 on; a test compares them.
MODULE_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--add-modules=jdk.incubator.vector",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.invoke=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.cs=ALL-UNNAMED",
    "--add-opens=java.base/sun.security.action=ALL-UNNAMED",
    "--add-opens=java.base/sun.util.calendar=ALL-UNNAMED",
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dderby.connection.requireAuthentication=false",
)
_MAIN = "org.apache.spark.deploy.SparkSubmit"
_START_SECONDS = 120.0
_POLL_SECONDS = 0.02
_PLACE = "_PYSPARK_DRIVER_CONN_INFO_PATH"


@dataclass
class Jvm:
    """A JVM that is coming up; it ends when this process does.

    Attributes:
        process: it reads from this process and ends with it.
        folder: where it writes how it is reached.
        is_used: somebody knows how it is reached, and ends it.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    is_used: bool = False

    def connection(self) -> tuple[int, str]:
        """Wait until the JVM is up; return its port and the secret to speak to it with.

        Raises:
            MachineError: it has ended, or is not up in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._file.is_file():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise MachineError(
                    "Spark's JVM did not come up; the lines above say why. `flagstream doctor` checks Java"
                )
            time.sleep(_POLL_SECONDS)
        content = self._file.read_bytes()
        shutil.rmtree(self.folder, ignore_errors=True)
        port, length = struct.unpack_from(">ii", content)
        self.is_used = True
        return port, content[8 : 8 + length].decode()

    def let_end(self, seconds: float) -> None:
        """Have the JVM end by itself, and wait for that; one that does not is ended."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.end()

    @property
    def is_running(self) -> bool:
        """Whether the JVM has not ended."""
        return self.process.poll() is None

    def end(self) -> None:
        """End the JVM at once, and wait for that."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.folder / "connection"


def spark_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where Spark is installed: SPARK_HOME, else what PySpark ships.

    Raises:
        MachineError: PySpark is not installed.
    """
    if environ.get("SPARK_HOME"):
        return Path(environ["SPARK_HOME"])
    found = importlib.util.find_spec("pyspark")
    places = [] if found is None else list(found.submodule_search_locations or ())
    if not places:
        raise MachineError("PySpark is not installed: run `make setup`")
    return Path(places[0])


def class_path(jars: Iterable[Path]) -> list[Path]:
    """Return all jars of the JVM, in one order everywhere: Spark's, then those named."""
    return [*sorted((spark_home() / "jars").glob("*.jar")), *jars]


def launch_jvm(
    jars: Iterable[Path],
    options: Sequence[str],
    configuration: Mapping[str, str],
    needed: Collection[str] = (),
) -> Jvm:
    """Start the JVM, and do not wait for it.

    Args:
        jars: the jars beyond those of Spark.
        options: for the JVM itself.
        configuration: of Spark.
        needed: environment variables that it gets beside the harmless ones.
    """
    folder = Path(tempfile.mkdtemp(prefix="flagstream-jvm-"))
    submitted = [word for name, value in configuration.items() for word in ("--conf", f"{name}={value}")]
    submitted += shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell"))
    command = java_command(_MAIN, submitted, options, jars)
    environment = {
        **spark_environment(needed),
        "SPARK_CONNECT_MODE": "0",
        "PYTHONHASHSEED": "0",
        _PLACE: str(folder / "connection"),
    }
    # A group of its own: the terminal's Ctrl-C must not reach it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, process_group=0)
    return Jvm(process, folder)


def java_command(
    main: str, arguments: Sequence[str], options: Sequence[str] = (), jars: Iterable[Path] = ()
) -> list[str]:
    """Return the command that runs a class of Spark.

    Args:
        main: name of the class.
        arguments: for it.
        options: for the JVM itself.
        jars: beyond those of Spark.
    """
    path = os.pathsep.join(_class_path(jars))
    return [find_java(), "-cp", path, *MODULE_OPTIONS, *options, main, *arguments]


def spark_environment(needed: Collection[str] = ()) -> dict[str, str]:
    """Return what a JVM of Spark gets of the environment: no keys but those that it needs."""
    return {**child_environment(needed=needed), "SPARK_HOME": str(spark_home()), "SPARK_USER": user_name()}


def places_of_files(scratch: Path) -> list[str]:
    """Return options that keep what libraries of the JVM write where this user may write."""
    found = [f"-Djava.io.tmpdir={tempfile.gettempdir()}"]
    return found if is_known() else [*found, f"-Duser.home={scratch}", f"-Duser.name={user_name()}"]


def _class_path(jars: Iterable[Path]) -> list[str]:
    """Folders of configuration that somebody has named come first, as Spark has it."""
    named = [os.environ.get(name) for name in ("SPARK_CONF_DIR", "HADOOP_CONF_DIR")]
    return [*(each for each in named if each), *map(str, class_path(jars))]
