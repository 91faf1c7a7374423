"""What child processes get of the environment: what programs need to run, and no keys."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

PRIVATE_UMASK = 0o077
_LOCALE = "C.UTF-8"
_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE",
    "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "JAVA_HOME", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "OMP_NUM_THREADS", "SPARK_HOME", "SPARK_CONF_DIR", "SPARK_LOCAL_IP",
    "SPARK_LOCAL_DIRS", "SPARK_LOCAL_HOSTNAME", "HADOOP_HOME", "HADOOP_CONF_DIR", "PYSPARK_PYTHON",
    "PYSPARK_DRIVER_PYTHON", "PYSPARK_SUBMIT_ARGS",
})  # fmt: skip


def child_environment(
    environ: Mapping[str, str] = os.environ, needed: Collection[str] = ()
) -> dict[str, str]:
    """Return the part of `environ` that child processes get, with what one of them needs besides.

    They read and write UTF-8, also where the machine's language has another encoding or none.
    """
    kept = {name: value for name, value in environ.items() if name in _NAMES or name in needed}
    return {**kept, "LC_ALL": _LOCALE}
