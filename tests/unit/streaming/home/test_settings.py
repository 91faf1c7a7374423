from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, MachineError
from streaming.home.settings import Settings, find_java
from streaming.testing.live_lake import agent


def java_in(folder: Path) -> str:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch(mode=0o755)
    return str(java)


def test_an_empty_environment_gives_the_embedded_defaults(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    assert (settings.home, settings.kafka) == (tmp_path.resolve(), "embedded")
    assert (settings.llm_base_url, settings.ivy_settings) == (None, None)
    assert settings.cache == Path(__file__).resolve().parents[4] / ".cache"


def test_every_variable_is_read(tmp_path: Path) -> None:
    environ = {
        "FLAGSTREAM_HOME": "the command line reads it",
        "FLAGSTREAM_CACHE": str(tmp_path / "cache"),
        "FLAGSTREAM_KAFKA": "kafka.example:9092",
        "FLAGSTREAM_LLM_BASE_URL": "http://127.0.0.1:1/v1",
        "FLAGSTREAM_IVY_SETTINGS": str(tmp_path / "ivy.xml"),
    }
    settings = Settings.load(tmp_path, environ)
    assert settings.kafka == "kafka.example:9092"
    assert settings.llm_base_url == "http://127.0.0.1:1/v1"
    assert settings.ivy_settings == tmp_path / "ivy.xml"
    assert settings.jars_spark == tmp_path.resolve() / "cache" / "jars" / "spark"


def test_an_empty_variable_counts_as_absent(tmp_path: Path) -> None:
    names = ("CACHE", "KAFKA", "LLM_BASE_URL", "IVY_SETTINGS", "AUDIT_KEY")
    empty = Settings.load(tmp_path, {f"FLAGSTREAM_{name}": "" for name in names})
    absent = Settings.load(tmp_path, {})
    assert (empty.kafka, empty.cache) == (absent.kafka, absent.cache)
    assert (empty.llm_base_url, empty.ivy_settings, empty.audit_key) == (None, None, None)


def test_the_audit_key_is_masked_and_must_be_long(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 2
    settings = Settings.load(tmp_path, {"FLAGSTREAM_AUDIT_KEY": secret})
    assert settings.audit_key is not None
    assert settings.audit_key.get_secret_value() == secret
    assert secret not in repr(settings)
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_AUDIT_KEY: expected at least 32") as refused:
        Settings.load(tmp_path, {"FLAGSTREAM_AUDIT_KEY": "short-secret"})
    assert "short-secret" not in str(refused.value)


def test_a_misspelt_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"FLAGSTREAM_KAKFA: .*did you mean 'FLAGSTREAM_KAFKA'"):
        Settings.load(tmp_path, {"FLAGSTREAM_KAKFA": "embedded"})


@pytest.mark.parametrize("service", ["FLAGSTREAM", "FLAGSTREAM_KAFKA", "FLAGSTREAM_REST_V2"])
def test_what_kubernetes_says_of_services_is_nobody_s_setting(tmp_path: Path, service: str) -> None:
    injected = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.1:80",
        "PORT_80_TCP": "tcp://10.0.0.1:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "fd00::1",
        "PORT_53_UDP": "udp://[fd00::1]:53",
    }
    environ = {f"{service}_{name}": value for name, value in injected.items()}
    assert Settings.load(tmp_path, environ).kafka == "embedded"
    for name in environ:
        with pytest.raises(ConfigurationError, match=f"{name}: unknown variable"):
            Settings.load(tmp_path, {**environ, name: "of my own"})


@pytest.mark.parametrize("value", ["Docker", "localhost", "9092"])
def test_a_kafka_that_is_no_address_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_KAFKA: expected embedded, docker or host:port"):
        Settings.load(tmp_path, {"FLAGSTREAM_KAFKA": value})


@given(key=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12))
def test_a_key_never_shows(key: str) -> None:
    settings = Settings.load(Path("var"), {"SOME_KEY": key})
    secret = settings.api_key("SOME_KEY")
    assert secret is not None
    assert secret.get_secret_value() == key
    for shown in (repr(settings), str(settings), repr(secret), str(secret)):
        assert key not in shown


def test_a_key_that_is_absent_or_empty_is_none(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {"SOME_KEY": ""})
    assert settings.api_key("SOME_KEY") is None
    assert settings.api_key("OTHER_KEY") is None


def test_all_state_lies_below_home_and_agents_do_not_share_it(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    places = [
        Path(str(place(agent)))
        for place in (settings.lake, settings.checkpoint, settings.profiles)
        for agent in "ab"
    ]
    assert len(set(places)) == len(places)
    assert all(settings.home in place.parents for place in [*places, settings.spark])


def test_the_java_of_java_home_comes_before_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, on_path = java_in(tmp_path / "chosen"), java_in(tmp_path / "path")
    monkeypatch.setenv("PATH", str(Path(on_path).parent))
    assert find_java({"JAVA_HOME": str(tmp_path / "chosen")}) == chosen
    assert find_java({"JAVA_HOME": str(tmp_path / "gone")}) == on_path
    assert find_java({}) == on_path


def test_without_java_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="install a JDK 17 or newer"):
        find_java({})


def test_tables_lie_in_the_store_and_what_needs_this_machine_in_the_home(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {"FLAGSTREAM_STORE": "s3://bucket/agents/"})
    kept = (settings.lake, settings.profiles, settings.models, settings.audit, settings.snapshots)
    assert all(str(place("a")).startswith("s3://bucket/agents/") for place in (*kept, settings.artefacts))
    here = (settings.checkpoint("a"), settings.sandbox("a"), settings.health("a"), settings.spark)
    assert all(settings.home in path.parents for path in here)


def test_a_store_may_be_another_folder(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {"FLAGSTREAM_STORE": f"file://{tmp_path}/store"})
    assert settings.lake("a").path == tmp_path.resolve() / "store" / "lake" / "a"


def test_the_store_of_the_environment_goes_before_that_of_the_spec(tmp_path: Path) -> None:
    spec = agent(store="s3://of-the-spec")
    assert Settings.load(tmp_path, {}).under(spec).lake("a").uri == "s3://of-the-spec/lake/a"
    given = Settings.load(tmp_path, {"FLAGSTREAM_STORE": "s3://of-the-environment"})
    assert given.under(spec).lake("a").uri == "s3://of-the-environment/lake/a"
    assert Settings.load(tmp_path, {}).under(agent()).lake("a").path == tmp_path.resolve() / "lake" / "a"


@pytest.mark.parametrize("home", ["s3://bucket/x", "az://container/x", "file:///tmp/x"])
def test_a_home_that_is_no_folder_is_refused_with_what_to_do(home: str) -> None:
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_STORE"):
        Settings.load(Path(home), {})


def test_a_store_that_is_not_supported_is_refused_by_the_setting_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_STORE: gs:// is not supported"):
        Settings.load(tmp_path, {"FLAGSTREAM_STORE": "gs://bucket"})
    with pytest.raises(ConfigurationError, match="store of the spec 'tester': hdfs:// is not supported"):
        Settings.load(tmp_path, {}).under(agent(store="hdfs://name/x"))


@pytest.mark.parametrize("name", ["--home", "FLAGSTREAM_CACHE", "FLAGSTREAM_STORE"])
def test_a_folder_whose_links_lead_in_a_circle_is_refused(tmp_path: Path, name: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    home, named = (one, {}) if name == "--home" else (tmp_path / "home", {name: str(one)})
    with pytest.raises(ConfigurationError, match=f"{name}.*links lead in a circle"):
        Settings.load(home, named)
