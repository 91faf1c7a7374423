"""How librdkafka proves who it is to Amazon MSK: short-lived tokens, signed here with AWS credentials.

Java has a mechanism of its own for that, AWS_MSK_IAM; brokers take the same signature as an OAuth token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

# Where AWS's libraries find credentials; Spark's JVM needs the same.
AWS_VARIABLES = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_STS_REGIONAL_ENDPOINTS",
    }
)
MODULE = "software.amazon.msk.auth.iam.IAMLoginModule"
HANDLER = "software.amazon.msk.auth.iam.IAMClientCallbackHandler"
_HOST = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com")
_SESSION = "flagstream"
Token = tuple[str, float]


def msk_tokens(
    bootstrap: str, options: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> Callable[[str], Token]:
    """Return librdkafka's `oauth_cb`: it gives a token and the second at which it expires.

    Args:
        bootstrap: addresses of the brokers, whose names hold their region.
        options: of the login module: awsProfileName, or awsRoleArn and awsRoleSessionName.
        environ: names the region where the brokers do not.

    Raises:
        ValueError: the signer is not installed, or the region cannot be known.
    """
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 -- an extra
    except ImportError:
        raise ValueError(
            "AWS_MSK_IAM needs more packages; in the clone: "
            "pip install --require-hashes -r requirements/msk.txt"
        ) from None
    region = _region(bootstrap, environ)
    profile, role = options.get("awsProfileName"), options.get("awsRoleArn")

    def token(_: str) -> Token:
        if role is not None:
            session = options.get("awsRoleSessionName", _SESSION)
            signed, expires_ms = MSKAuthTokenProvider.generate_auth_token_from_role_arn(region, role, session)
        elif profile is not None:
            signed, expires_ms = MSKAuthTokenProvider.generate_auth_token_from_profile(region, profile)
        else:
            signed, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return signed, expires_ms / 1000

    return token


def _region(bootstrap: str, environ: Mapping[str, str]) -> str:
    found = _HOST.search(bootstrap)
    region = found[1] if found else environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise ValueError("AWS_MSK_IAM: the brokers' names hold no region; set AWS_REGION")
    return region
