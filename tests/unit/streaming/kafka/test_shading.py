"""Names of Kafka's classes are those that the JVM has, and nothing else of the options changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming.kafka.shading import with_class_names

LOGIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="a" password="b";'
HANDLER = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"
MSK = "software.amazon.msk.auth.iam.IAMLoginModule required;"


def everywhere(_: str) -> bool:
    return True


def nowhere(_: str) -> bool:
    return False


def test_a_client_that_was_moved_is_named_by_its_place() -> None:
    options = {"kafka.sasl.jaas.config": LOGIN, "kafka.sasl.login.callback.handler.class": HANDLER}
    found = with_class_names(options, everywhere)
    assert found["kafka.sasl.jaas.config"] == f"kafkashaded.{LOGIN}"
    assert found["kafka.sasl.login.callback.handler.class"] == f"kafkashaded.{HANDLER}"
    assert with_class_names(found, everywhere) == found


def test_each_of_both_clients_goes_by_itself() -> None:
    found = with_class_names({"kafka.sasl.jaas.config": MSK}, lambda name: name.startswith("kafkashaded"))
    assert found == {"kafka.sasl.jaas.config": MSK}
    assert with_class_names({"kafka.sasl.jaas.config": MSK}, everywhere) == {
        "kafka.sasl.jaas.config": f"shadedmskiam.{MSK}"
    }


@given(
    st.dictionaries(
        st.text(max_size=12).filter(lambda name: "class" not in name and "jaas" not in name), st.text()
    )
)
def test_what_names_no_class_stays_and_asks_nobody(options: dict[str, str]) -> None:
    def unasked(name: str) -> bool:
        raise AssertionError(name)

    assert with_class_names(options, unasked) == options
    assert (
        with_class_names({**options, "kafka.sasl.jaas.config": LOGIN}, nowhere)["kafka.sasl.jaas.config"]
        == LOGIN
    )
