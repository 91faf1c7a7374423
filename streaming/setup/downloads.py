"""Downloads the pinned jars once: resolved by the Ivy that PySpark ships, checked, then moved into place.

`jars.lock` names every jar with its checksum. Ivy only fetches: dependencies are not followed, so what ends
up on a class path is what the lock says and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from agent.model.child_environment import child_environment
from agent.model.processes import one_at_a_time
from agent.model.proxies import ProxyAddress, proxy_address
from schemas.errors import MachineError
from streaming.home.settings import Settings, find_java

LOCK_FILE = Path(__file__).parent / "jars.lock"
_STAMP = "lock.sha256"
_DOWNLOAD_SECONDS = 900.0
_MODULE = """\
<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">
  <info organisation="flagstream" module="{section}"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}
  </dependencies>
</ivy-module>
"""


@dataclass(frozen=True, order=True)
class Jar:
    """One line of the lock: a published jar and the checksum it must have.

    Attributes:
        section: `broker`, `spark`, `msk` or `bench`, the folder the jar goes to.
        organisation: who publishes it.
        name: the artifact's name.
        revision: its version.
        sha256: lower-case hexadecimal digest of the file.
        classifier: which of several jars of one version; empty for the only one.
    """

    section: str
    organisation: str
    name: str
    revision: str
    sha256: str
    # The stamps of folders fetched earlier are made of what is shown.
    classifier: str = field(default="", repr=False)

    @property
    def file_name(self) -> str:
        """Name of the file in the section's folder."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.revision}{classifier}.jar"


def locked_jars(section: str, lock: Path = LOCK_FILE) -> list[Jar]:
    """Return the jars the lock lists for a section, in the lock's order."""
    lines = (line.split() for line in lock.read_text(encoding="utf-8").splitlines())
    fields = [line for line in lines if line and line[0] == section]
    return [_jar(section, coordinates, sha256) for _, coordinates, sha256 in fields]


def fetch_jars(
    settings: Settings,
    *,
    lock: Path = LOCK_FILE,
    folders: Sequence[Path] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Download what the lock lists into the folders of its sections.

    A section that was fetched under the same lock is left alone. An interrupted download leaves only Ivy's
    cache behind, from which the next call goes on.

    Args:
        settings: the cache folder and, optionally, an Ivy settings file naming a mirror.
        lock: the file that lists the jars.
        folders: of sections; `settings.jars_broker` and `settings.jars_spark` unless given.
        say: receives one progress line at a time.

    Raises:
        MachineError: no Java, a download failed, or a checksum is wrong.
    """
    folders = folders or (settings.jars_broker, settings.jars_spark)
    if all(_is_current(folder, lock) for folder in folders):
        return
    with one_at_a_time(settings.cache / "jars.guard"):
        for folder in folders:
            if not _is_current(folder, lock):
                _fetch_section(settings, folder, lock, say)
        shutil.rmtree(_ivy_cache(settings), ignore_errors=True)


def jar_paths(folder: Path, *, lock: Path = LOCK_FILE) -> list[Path]:
    """Return the jars in a section's folder, sorted by name.

    Args:
        folder: of a section, such as `settings.jars_spark`.
        lock: the file that lists the jars.

    Raises:
        MachineError: they were not fetched, or the lock has changed since.
    """
    if not _is_current(folder, lock):
        how = "flagstream fetch --msk" if folder.name == "msk" else "make setup"
        raise MachineError(f"the pinned jars are not in {folder}: run `{how}`")
    return sorted(folder.glob("*.jar"))


def check_jars(folder: Path, jars: Sequence[Jar]) -> None:
    """Compare every jar's file in `folder` with its checksum.

    Raises:
        MachineError: names the first jar that is missing or differs.
    """
    for jar in jars:
        path = folder / jar.file_name
        if not path.is_file():
            raise MachineError(f"{jar.file_name} is missing from {folder}: run `make setup`")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != jar.sha256:
            raise MachineError(
                f"{jar.file_name} has the wrong checksum: expected sha256 {jar.sha256}, found {found}. "
                f"Remove {folder} and run `make setup`; if it comes back the same, the place it is "
                "downloaded from serves another file: do not use it"
            )


def _jar(section: str, coordinates: str, sha256: str) -> Jar:
    organisation, name, revision, *classifier = coordinates.split(":")
    return Jar(section, organisation, name, revision, sha256, *classifier)


def _is_current(folder: Path, lock: Path) -> bool:
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == digest(locked_jars(folder.name, lock))


def digest(jars: Sequence[Jar]) -> str:
    """Return the sha256 that stamps a folder fetched under these lines of the lock."""
    return hashlib.sha256("\n".join(map(str, jars)).encode()).hexdigest()


def _ivy_cache(settings: Settings) -> Path:
    return settings.cache / "ivy"


def _fetch_section(settings: Settings, folder: Path, lock: Path, say: Callable[[str], None]) -> None:
    jars = locked_jars(folder.name, lock)
    say(f"{folder.name}: fetching {len(jars)} jars")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        staged = Path(name) / "jars"
        _retrieve(settings, jars, staged, say)
        try:
            check_jars(staged, jars)
        except MachineError:
            # A retry must download again instead of finding the same bytes in Ivy's cache.
            shutil.rmtree(_ivy_cache(settings), ignore_errors=True)
            raise
        (staged / _STAMP).write_text(digest(jars), encoding="utf-8")
        if folder.exists():
            folder.rename(Path(name) / "replaced")
        staged.rename(folder)
    say(f"{folder.name}: {len(jars)} jars checked, in {folder}")


def _retrieve(settings: Settings, jars: Sequence[Jar], staged: Path, say: Callable[[str], None]) -> None:
    staged.mkdir()
    module = staged.parent / "ivy.xml"
    module.write_text(_ivy_module(jars), encoding="utf-8")
    cause = _run_ivy(_ivy_command(settings, module, staged), len(jars), say)
    missing = [jar for jar in jars if not (staged / jar.file_name).is_file()]
    if missing:
        names = ", ".join(f"{jar.organisation}:{jar.name}:{jar.revision}" for jar in missing)
        raise MachineError(
            f"could not download {names}; {cause}. Check the network and run `make setup` again, or name "
            "an Ivy settings file with a mirror in FLAGSTREAM_IVY_SETTINGS"
        )


def _ivy_module(jars: Sequence[Jar]) -> str:
    return _MODULE.format(section=jars[0].section, dependencies="\n".join(map(_dependency, jars)))


def _dependency(jar: Jar) -> str:
    org, name, rev = map(quoteattr, (jar.organisation, jar.name, jar.revision))
    head = f'    <dependency org={org} name={name} rev={rev} transitive="false" conf="default->master"'
    if not jar.classifier:
        return f"{head}/>"
    one = f'<artifact name={name} type="jar" ext="jar" m:classifier={quoteattr(jar.classifier)}/>'
    return f"{head}>{one}</dependency>"


def _ivy_command(settings: Settings, module: Path, staged: Path) -> list[str]:
    cache = _ivy_cache(settings)
    mirror = ["-settings", str(settings.ivy_settings)] if settings.ivy_settings else []
    return [
        # Ivy also looks below its user folder, where other projects leave what they like.
        *(
            find_java(),
            f"-Divy.default.ivy.user.dir={cache}",
            *proxy_options(),
            "-jar",
            str(_ivy_jar()),
            *mirror,
        ),
        *("-cache", str(cache), "-ivy", str(module), "-confs", "default", "-types", "jar", "bundle"),
        *("-retrieve", f"{staged}/[artifact]-[revision](-[classifier]).[ext]"),
    ]


def proxy_options() -> list[str]:
    """A JVM does not read the variables that name a proxy. It gets no login: all processes see it."""
    found, proxies = [], urllib.request.getproxies()
    for scheme in ("http", "https"):
        address = proxies.get(scheme) or proxies.get("all")
        if address:
            proxy = _proxy(scheme, address)
            found += [f"-D{scheme}.proxyHost={proxy.host}", f"-D{scheme}.proxyPort={proxy.port}"]
    direct = [
        f"*{each}" if each.startswith(".") else each for each in proxies.get("no", "").split(",") if each
    ]
    return [*found, f"-Dhttp.nonProxyHosts={'|'.join(direct)}"] if found and direct else found


def _proxy(scheme: str, address: str) -> ProxyAddress:
    try:
        return proxy_address(address)
    except ValueError as fault:
        problem = f"the proxy that the environment names for {scheme} cannot be used: {fault}"
        raise MachineError(problem) from None


def _ivy_jar() -> Path:
    spark = importlib.util.find_spec("pyspark")
    places = [Path(place) for place in (spark.submodule_search_locations or [])] if spark else []
    found = [path for place in places for path in sorted(place.glob("jars/ivy-*.jar"))]
    if not found:
        raise MachineError("PySpark and the Ivy it ships are not installed: run `make setup`")
    return found[0]


def _run_ivy(command: Sequence[str], jars: int, say: Callable[[str], None]) -> str:
    """Run Ivy, passing on what it downloads of so many jars; return how it ended and its last complaint."""
    complaint, begun = "it reported no fault", set[str]()
    with _started(command) as ivy:
        # No worker: it is a timer of this one download.
        overdue = threading.Timer(_DOWNLOAD_SECONDS, ivy.kill)
        overdue.start()
        try:
            for line in ivy.stdout or ():
                name = _downloaded(line)
                if name and name not in begun:
                    begun.add(name)
                    say(f"  {len(begun)} of {jars}: {name}")
                elif any(mark in line for mark in ("ERROR", "Exception", "error")):
                    complaint = line.strip()
        finally:
            overdue.cancel()
    return f"Ivy ended with {ivy.returncode}: {complaint}"


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=child_environment(),
        )
    except OSError as fault:
        raise MachineError(
            f"{command[0]} cannot be run: {fault.strerror}. Name a JDK with JAVA_HOME"
        ) from None


def _downloaded(line: str) -> str:
    """Return the jar that a line of Ivy's says is downloaded, empty for other lines; Ivy may say it again."""
    words = line.split()
    return words[1].rpartition("/")[2] if words[:1] == ["downloading"] and len(words) > 1 else ""
