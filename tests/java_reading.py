"""Java's own classes and those of Kafka's Java client, asked how they read what stands in a file."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterable
from pathlib import Path

from agent.model.child_environment import child_environment
from streaming.home.settings import Settings, find_java
from streaming.jvm.launching import spark_home

SECONDS = 60.0
_SOURCE = r"""
import java.io.*;
import java.util.*;
import java.util.stream.*;
import org.apache.kafka.common.config.ConfigTransformer;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.config.provider.*;
import org.apache.kafka.common.security.JaasContext;

public class Reading {
    static String shown(Map<?, ?> found) {
        return found.entrySet().stream().map(e -> hex(e.getKey()) + "=" + hex(e.getValue()))
            .sorted().collect(Collectors.joining(","));
    }
    static String hex(Object text) {
        return String.valueOf(text).chars().mapToObj(c -> String.format("%04x", c))
            .collect(Collectors.joining());
    }
    static Map<?, ?> read(String kind, String text) throws Exception {
        if (kind.equals("properties")) {
            Properties found = new Properties();
            found.load(new StringReader(text));
            return found;
        }
        if (kind.equals("place")) {
            DirectoryConfigProvider files = new DirectoryConfigProvider();
            files.configure(Map.of());
            return new ConfigTransformer(Map.of("file", files)).transform(Map.of("key", text)).data();
        }
        Map<String, ?> configs = Map.of("sasl.jaas.config", new Password(text));
        return JaasContext.loadClientContext(configs).configurationEntries().get(0).getOptions();
    }
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String text = new String(Base64.getDecoder().decode(line), "UTF-8");
            try {
                System.out.println(shown(read(args[0], text)));
            } catch (IllegalArgumentException refused) {
                System.out.println("refused");
            }
        }
    }
}
"""


def read_by_java(kind: str, texts: Iterable[str], folder: Path) -> list[dict[str, str] | None]:
    """Return what Java reads in each of these texts, None for what it refuses.

    Args:
        kind: `properties`, `jaas` or `place`, a value whose places a configuration provider fills in.
        folder: for the program.
    """
    source = folder / "Reading.java"
    source.write_text(_SOURCE, encoding="utf-8")
    clients = Settings.load(folder, {}).jars_spark.glob("kafka-clients*.jar")
    jars = [*(spark_home() / "jars").glob("slf4j-api*.jar"), *clients]
    command = [find_java(), "-cp", ":".join(map(str, jars)), str(source), kind]
    lines = "".join(f"{base64.b64encode(text.encode()).decode()}\n" for text in texts)
    done = subprocess.run(
        command,
        input=lines,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=child_environment(),
        check=True,
    )
    return [None if line == "refused" else _pairs(line) for line in done.stdout.splitlines()]


def _pairs(line: str) -> dict[str, str]:
    pairs = (each.split("=") for each in line.split(",") if each)
    return {_text(key): _text(value) for key, value in pairs}


def _text(units: str) -> str:
    return bytes.fromhex(units).decode("utf-16-be", "replace")
