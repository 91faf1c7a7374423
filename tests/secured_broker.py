"""A real broker with TLS, logins and access rights, for tests: one listener per way in."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from agent.model.child_environment import child_environment
from agent.model.processes import free_port
from streaming.home.brokers import connection
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.grants import Grant
from tests.oidc_issuer import AUDIENCE, Issuer, oidc_issuer

USER, CERTIFIED = "agent", "tls-agent"
# What would end a quoted option of a login module, or a properties value, if it were not escaped.
PASSWORD = 'canary-7f3a"; \\secret='
# What may stand between the quotes of a login without being escaped, of SCRAM-SHA-256 and of PKCS12 stores.
PLAIN_PASSWORD, STORE_PASSWORD = "canary-7f3a-in-a-file", "canary-7f3a-of-stores"
_SECURITY = "org.apache.kafka.common.security"
_PROPERTIES = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
auto.create.topics.enable=false
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.scram.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.scram.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.plain.sasl.enabled.mechanisms=PLAIN
listener.name.plain.plain.sasl.jaas.config={security}.plain.PlainLoginModule \\
  required user_{user}="{password}";
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={security}.oauthbearer.OAuthBearerLoginModule \\
  required unsecuredLoginStringClaim_sub="unused";
listener.name.oidc.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oidc.oauthbearer.sasl.server.callback.handler.class={security}.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oidc.oauthbearer.sasl.jaas.config={security}.oauthbearer.OAuthBearerLoginModule required;
listener.name.oidc.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={issuer.jwks_url}
listener.name.oidc.oauthbearer.sasl.oauthbearer.expected.audience={audience}
listener.name.oidc.oauthbearer.sasl.oauthbearer.expected.issuer={issuer.url}
listener.name.mtls.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
ssl.keystore.type=PEM
ssl.keystore.location={certificates}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={certificates}/ca.pem
"""
_PROTOCOLS = {
    "SCRAM": "SASL_SSL",
    "PLAIN": "SASL_SSL",
    "MTLS": "SSL",
    "OAUTH": "SASL_PLAINTEXT",
    "OIDC": "SASL_SSL",
}
_ALLOWED_URLS = "org.apache.kafka.sasl.oauthbearer.allowed.urls"


@dataclass(frozen=True, kw_only=True)
class SecuredBroker(EmbeddedBroker):
    """An embedded broker whose plain listener is the administrator's alone.

    Attributes:
        issuer: of the tokens that listener OIDC takes.
        ports: of the listeners SCRAM, PLAIN, MTLS, OAUTH and OIDC.
    """

    issuer: Issuer
    ports: Mapping[str, int] = field(default_factory=lambda: {name: free_port() for name in _PROTOCOLS})

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def _configure(self, port: int, controller: int) -> None:
        make_certificates(self.certificates)
        super()._configure(port, controller)
        text = self._properties.read_text(encoding="utf-8")
        plain = f"PLAINTEXT://127.0.0.1:{port}"
        more = ",".join(f"{name}://localhost:{each}" for name, each in self.ports.items())
        map_ = ",".join(f"{name}:{kind}" for name, kind in _PROTOCOLS.items())
        text = text.replace(plain, f"{plain},{more}")
        text += f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{map_}\n"
        text += "inter.broker.listener.name=PLAINTEXT\n"
        password = PASSWORD.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")
        text += _PROPERTIES.format(
            user=USER,
            password=password,
            certificates=self.certificates,
            security=_SECURITY,
            issuer=self.issuer,
            audience=AUDIENCE,
        )
        self._properties.write_text(text, encoding="utf-8")

    def _command(self, main: str, *arguments: str) -> list[str]:
        java, *rest = super()._command(main, *arguments)
        return [java, f"-D{_ALLOWED_URLS}={self.issuer.jwks_url}", *rest]

    def client_properties(self, name: str, file: str | None = None, **changes: str | None) -> Path:
        """Write a client.properties that reaches the listener of this name; secrets are in $KAFKA_JAAS."""
        known: dict[str, str | None] = {"bootstrap.servers": f"localhost:{self.ports[name]}"}
        known["security.protocol"] = _PROTOCOLS[name]
        if _PROTOCOLS[name].endswith("SSL"):
            known |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": f"{self.certificates}/ca.pem",
            }
        if name == "MTLS":
            known |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": f"{self.certificates}/client.pem"}
        else:
            mechanism = {"SCRAM": "SCRAM-SHA-512", "PLAIN": "PLAIN"}.get(name, "OAUTHBEARER")
            known |= {"sasl.mechanism": mechanism, "sasl.jaas.config": "${env:KAFKA_JAAS}"}
        if name == "OIDC":
            known["sasl.oauthbearer.token.endpoint.url"] = self.issuer.token_url
        known |= changes
        path = self.folder / (file or f"{name.lower()}.properties")
        lines = [f"{key}={value}" for key, value in known.items() if value is not None]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def place_of(self, secret: str, name: str, end: str = "") -> str:
        """Keep a secret in a file, and return what stands for it in a client.properties."""
        path = self.folder / name
        path.write_text(f"{secret}{end}", encoding="utf-8")
        return f"${{file:{path}}}"

    def librdkafka_properties(self, name: str) -> Path:
        """Write a file in librdkafka's names that reaches listener MTLS, or SCRAM by SCRAM-SHA-256."""
        logins = {
            "SCRAM": {
                "sasl.mechanisms": "SCRAM-SHA-256",
                "sasl.username": USER,
                "sasl.password": self.place_of(PLAIN_PASSWORD, "password"),
            },
            "MTLS": {
                "ssl.certificate.location": f"{self.certificates}/client.crt",
                "ssl.key.location": f"{self.certificates}/client.key",
            },
        }
        known = {
            "metadata.broker.list": f"localhost:{self.ports[name]}",
            "security.protocol": _PROTOCOLS[name].lower(),
            "ssl.ca.location": f"{self.certificates}/ca.pem",
            **logins[name],
        }
        path = self.folder / f"librdkafka-{name.lower()}.properties"
        path.write_text("\n".join(f"{key}={value}" for key, value in known.items()), encoding="utf-8")
        return path


def jaas(name: str, password: str = PASSWORD, more: str = "") -> str:
    """Return the login of the test's user for a listener, as Java writes it, with `more` options of OIDC."""
    if name == "OAUTH":
        module = f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule"
        return f'{module} required unsecuredLoginStringClaim_sub="{USER}";'
    if name == "OIDC":
        module = f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule"
        login = f'clientId="{USER}" clientSecret="{_escaped(password)}" scope="events"'
        return f"{module} required {login}{more};"
    kind, login = ("scram", "Scram") if name == "SCRAM" else ("plain", "Plain")
    escaped = _escaped(password)
    module = f"{_SECURITY}.{kind}.{login}LoginModule"
    return f'{module} required username="{USER}" password="{escaped}";'


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace('"', '\\"')


def add_scram_user(bootstrap: str) -> None:
    """Give the test's user a password per mechanism that the broker keeps."""
    from confluent_kafka.admin import (  # noqa: PLC0415 -- used here alone
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    passwords = {ScramMechanism.SCRAM_SHA_256: PLAIN_PASSWORD, ScramMechanism.SCRAM_SHA_512: PASSWORD}
    admin = AdminClient(connection(bootstrap))
    for mechanism, password in passwords.items():  # a request takes one of a user
        info = ScramCredentialInfo(mechanism, 4096)
        wanted = UserScramCredentialUpsertion(USER, info, password.encode())
        for future in admin.alter_user_scram_credentials([wanted]).values():
            future.result(10)


def allow(bootstrap: str, principal: str, grants: Iterable[Grant]) -> None:
    """Grant a login some rights, and nothing else."""
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }
    bindings = [
        AclBinding(
            kinds[grant.resource],
            grant.name,
            ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
            f"User:{principal}",
            "*",
            AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for grant in grants
        for operation in grant.operations
    ]
    admin = AdminClient(connection(bootstrap))
    for future in admin.create_acls(bindings).values():
        future.result(10)


def allow_everything(bootstrap: str, principal: str) -> None:
    """Make a login an administrator of topics, groups and transactions."""
    operations = ("Read", "Write", "Create", "Delete", "AlterConfigs", "Describe", "DescribeConfigs")
    allow(bootstrap, principal, [Grant("topic", "*", False, operations, "")])
    allow(bootstrap, principal, [Grant("group", "*", False, ("Read", "Delete"), "")])
    allow(bootstrap, principal, [Grant("transactional-id", "*", False, ("Write",), "")])


def make_certificates(folder: Path) -> None:
    """Make an authority, a broker's and a client's certificate, all PEM; but for the broker's PKCS12, too."""
    if (folder / "client.pem").is_file():
        return
    folder.mkdir(parents=True)
    _openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ca.key")
    _openssl(
        folder,
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        "/CN=test CA",
        "-days",
        "30",
        "-out",
        "ca.pem",
    )
    _issue(folder, "broker", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    _issue(folder, "client", f"/CN={CERTIFIED}", "extendedKeyUsage=clientAuth")
    bundle = [
        "-inkey",
        "client.key",
        "-certfile",
        "ca.pem",
        "-passout",
        "env:STORE_PASSWORD",
        "-out",
        "client.p12",
    ]
    _openssl(folder, "pkcs12", "-export", "-in", "client.crt", *bundle)
    trusted = ["-nokeys", "-in", "ca.pem", "-passout", "env:STORE_PASSWORD", "-out", "ca.p12"]
    _openssl(folder, "pkcs12", "-export", *trusted)


def _issue(folder: Path, name: str, subject: str, extension: str) -> None:
    (folder / f"{name}.ext").write_text(f"{extension}\n", encoding="utf-8")
    _openssl(
        folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key"
    )
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
    _openssl(
        folder,
        "x509",
        "-req",
        "-in",
        f"{name}.csr",
        *signing,
        "-extfile",
        f"{name}.ext",
        "-out",
        f"{name}.crt",
    )
    parts = [(folder / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("key", "crt")]
    (folder / f"{name}.pem").write_text("".join(parts), encoding="utf-8")


def _openssl(folder: Path, *arguments: str) -> None:
    # Other tests look for it on the command lines of all processes.
    environ = {**child_environment(), "STORE_PASSWORD": STORE_PASSWORD}
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, env=environ)


@contextmanager
def secured_broker(folder: Path, jars: Path) -> Iterator[tuple[SecuredBroker, str]]:
    """Yield a running broker and the administrator's address."""
    certificates = folder / "certificates"
    make_certificates(certificates)
    with oidc_issuer(folder / "issuer", {USER: PASSWORD}, certificates / "broker.pem") as issuer:
        broker = SecuredBroker(folder, jars, issuer=issuer)
        address = broker.start()
        try:
            add_scram_user(address)
            yield broker, address
        finally:
            broker.stop()
