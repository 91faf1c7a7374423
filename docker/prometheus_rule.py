"""Writes the rules of docker/prometheus as an object of the Prometheus operator, for docker/kubernetes.

`python docker/prometheus_rule.py`, after a rule has changed; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

import yaml

DOCKER = Path(__file__).parent
FILE = DOCKER / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"
_HEAD = "# Made by: python docker/prometheus_rule.py\n"


def main() -> None:
    """Write the object."""
    files = sorted((DOCKER / "prometheus").glob("*rules.yml"))
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    groups = [group for content in contents for group in content.get("groups", [])]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "flagstream", "labels": {"app.kubernetes.io/name": "flagstream"}},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=118)
    FILE.write_text(_HEAD + text, encoding="utf-8")


if __name__ == "__main__":
    main()
