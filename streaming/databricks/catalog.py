"""Unity Catalog and secrets of a bundle: a schema, a volume, a scope of secrets, and who may do what."""

from __future__ import annotations

from databricks.bundles.schemas import Privilege as SchemaPrivilege
from databricks.bundles.schemas import PrivilegeAssignment, Schema
from databricks.bundles.secret_scopes import SecretScope, SecretScopePermission, SecretScopePermissionLevel
from databricks.bundles.volumes import Privilege as VolumePrivilege
from databricks.bundles.volumes import PrivilegeAssignment as VolumeGrant
from databricks.bundles.volumes import Volume, VolumeType

from schemas.spec import AgentSpec

SCHEMA = "${resources.schemas.schema.name}"
_AGENT, _READERS, _OPERATORS = "${var.service_principal}", "${var.readers}", "${var.operators}"


def schema_of(spec: AgentSpec) -> Schema:
    """Return the schema: readers find it, the tables in it are the agent's alone."""
    own = [
        SchemaPrivilege.USE_SCHEMA,
        SchemaPrivilege.CREATE_TABLE,
        SchemaPrivilege.SELECT,
        SchemaPrivilege.MODIFY,
    ]
    return Schema(
        catalog_name="${var.catalog}",
        name="${var.schema}",
        comment=f"Tables and curated views of the agent {spec.name}.",
        grants=[
            PrivilegeAssignment(principal=_AGENT, privileges=[*own]),
            PrivilegeAssignment(principal=_READERS, privileges=[SchemaPrivilege.USE_SCHEMA]),
            PrivilegeAssignment(principal=_OPERATORS, privileges=[SchemaPrivilege.USE_SCHEMA]),
        ],
    )


def volume_of(spec: AgentSpec) -> Volume:
    """Return the volume for small files that outlive a node; no table ever lies there."""
    return Volume(
        catalog_name="${var.catalog}",
        schema_name=SCHEMA,
        name="${var.volume}",
        volume_type=VolumeType.MANAGED,
        comment=f"What is small of the state of {spec.name}, and lies in no store.",
        grants=[
            VolumeGrant(
                principal=_AGENT, privileges=[VolumePrivilege.READ_VOLUME, VolumePrivilege.WRITE_VOLUME]
            )
        ],
    )


def secret_scope_of() -> SecretScope:
    """Return the scope: the agent reads what operators have put there."""
    return SecretScope(
        name="${var.secret_scope}",
        permissions=[
            SecretScopePermission(level=SecretScopePermissionLevel.READ, service_principal_name=_AGENT),
            SecretScopePermission(level=SecretScopePermissionLevel.WRITE, group_name=_OPERATORS),
        ],
    )
