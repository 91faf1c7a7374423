"""Brings a version of a bundle to a workspace, and switches its jobs to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from databricks.sdk.errors.base import DatabricksError
from databricks.sdk.service.catalog import PermissionsChange, Privilege, VolumeType
from databricks.sdk.service.iam import AccessControlRequest
from databricks.sdk.service.jobs import JobRunAs, JobSettings
from databricks.sdk.service.workspace import AclPermission, ExportFormat, ImportFormat, Language

from schemas.documents import parse_json
from schemas.errors import ConfigurationError
from schemas.instants import Clock, utc_now
from streaming.databricks.bundle_tree import Tree
from streaming.databricks.resolved import ResolvedBundle
from streaming.databricks.workspace import Workspace, absent, workspace_faults

_HISTORY, _RESOURCES = "deployments.json", "resources.json"
_ON_A_FOLDER = {"CAN_VIEW": "CAN_READ", "CAN_RUN": "CAN_RUN", "CAN_MANAGE": "CAN_MANAGE"}
_OURS = ("flagstream_agent", "flagstream_target")
_PRINCIPALS = ("service_principal_name", "group_name", "user_name")


Did = Literal["switched", "canary", "rolled_back"]


@dataclass(frozen=True)
class Deployed:
    """What was done on a target with a version, whole or begun.

    Attributes:
        version: that the jobs were switched to, or that decides a share.
        at: when, ISO 8601.
        by: who did it.
        did: what of it: the jobs `switched` to it, a `canary` of it began, or they were `rolled_back` to it.
        finished: false from before the first job is touched until all of them are as they should be.
    """

    version: str
    at: str
    by: str
    did: Did = "switched"
    finished: bool = True


def in_effect(history: Sequence[Deployed]) -> list[Deployed]:
    """Return what was done and not taken back since, oldest first: a rollback takes back the last of it."""
    found: list[Deployed] = []
    for each in history:
        # The same once more is no step of its own, nor is a canary that decides everything from here on.
        is_one_step = each.did == "switched" and found and found[-1].version == each.version
        if each.did == "rolled_back" or is_one_step:
            found = found[:-1]
        if each.did != "rolled_back":
            found.append(each)
    return found


class Deployment:
    """One bundle on one workspace.

    Args:
        workspace: reached by whoever deploys.
        bundle: what is to be there.
        clock: current time, timezone-aware.
    """

    def __init__(self, workspace: Workspace, bundle: ResolvedBundle, clock: Clock = utc_now) -> None:
        self._workspace, self._bundle, self._clock = workspace, bundle, clock

    def bring(self, wheel: Callable[[], bytes]) -> None:
        """Put this version's files, its wheel and what it asks for beside the versions that are there."""
        bundle = self._bundle
        known = f"{bundle.root}/versions/{bundle.version}/{_RESOURCES}"
        with workspace_faults("bringing the files"):
            if self._read(known) is None:
                files = {f"{bundle.file_path}/{path}": content for path, content in bundle.files.items()}
                files[bundle.wheel] = wheel()
                # Last, since it says that all of the version is there.
                files[known] = json.dumps(bundle.resources, sort_keys=True).encode()
                self._write_all(files)
            self._permit_folder()

    def prepare(self) -> None:
        """Make the scope of secrets, the schema and the volume where they are missing, and grant on them."""
        found = self._bundle.resources
        with workspace_faults("preparing Unity Catalog and secrets"):
            for scope in found.get("secret_scopes", {}).values():
                self._make_scope(scope)
            for schema in found.get("schemas", {}).values():
                self._make_schema(schema)
            for volume in found.get("volumes", {}).values():
                self._make_volume(volume)

    def history(self) -> list[Deployed]:
        """Return what was done and came to its end, oldest first."""
        return [each for each in self._noted() if each.finished]

    def steps(self) -> int:
        """Return how often the jobs were switched or rolled back: a further step differs by it."""
        return sum(each.did != "canary" for each in self.history())

    def current(self) -> Deployed | None:
        """Return the version that the jobs were switched to last and whole, None where there is none."""
        return _switched(in_effect(self.history()))

    def switch(self) -> dict[str, int]:
        """Have the jobs be this version's, and return their ids by key."""
        return self._switch_to(self._bundle.jobs, self._entry(self._bundle.version))

    def note_canary(self) -> None:
        """Remember that this version decides a share: a rollback then takes that back, and no job."""
        entry = self._entry(self._bundle.version, "canary")
        newest = in_effect(self.history())[-1:]
        if [(each.version, each.did) for each in newest] != [(entry.version, entry.did)]:
            self._note([*self.history(), entry])

    def jobs_in_force(self) -> Mapping[str, Tree]:
        """Return the jobs as they were switched to last, by their keys.

        Raises:
            ConfigurationError: they never were, or what they were is gone.
        """
        current = self.current()
        if current is None:
            raise ConfigurationError(
                f"nothing decides on {self._bundle.target} yet: bring the first version there with --follow"
            )
        return self._jobs_of(current.version)

    def former(self) -> Deployed:
        """Return the version of the jobs before what was done last.

        Where a switch was begun and never ended, that is the one that they were at before it.

        Raises:
            ConfigurationError: there is none.
        """
        stands = in_effect(self.history())
        found = _switched(stands if self._was_interrupted() else stands[:-1])
        if found is None:
            raise ConfigurationError(
                f"no version of {self._bundle.name} was on {self._bundle.target} before this one"
            )
        return found

    def switch_back(self) -> str | None:
        """Take back for the jobs what was done last, and return the version that they are at then.

        A canary has changed no job, so they stay. What an interrupted switch has done is taken back alone.

        Raises:
            ConfigurationError: there is no version to go back to, or it is gone.
        """
        stands = in_effect(self.history())
        if self._was_interrupted():
            former = self.former()
            self._switch_to(self._jobs_of(former.version), self._entry(former.version))
        elif stands and stands[-1].did == "canary":
            self._note([*self.history(), self._entry(stands[-1].version, "rolled_back")])
        else:
            former = self.former()
            self._switch_to(self._jobs_of(former.version), self._entry(former.version, "rolled_back"))
        at = self.current()
        return None if at is None else at.version

    def unfinished(self) -> Deployed | None:
        """Return what was begun with the jobs last and has not come to its end, None where nothing was."""
        return next((each for each in self._noted()[-1:] if not each.finished), None)

    def _was_interrupted(self) -> bool:
        """Whether a switch forward was begun and has not ended; a rollback that was is begun again."""
        begun = self.unfinished()
        return begun is not None and begun.did == "switched"

    def _jobs_of(self, version: str) -> Mapping[str, Tree]:
        place = f"{self._bundle.root}/versions/{version}/{_RESOURCES}"
        with workspace_faults("reading the former version"):
            content = self._read(place)
        if content is None:
            raise ConfigurationError("the former version is gone", where=place)
        found: Any = parse_json(content.decode(), where=place)
        return dict(found["jobs"])

    def _switch_to(self, jobs: Mapping[str, Tree], entry: Deployed) -> dict[str, int]:
        """Switch the jobs; before the first is touched it stands written down that this was begun."""
        before = self.history()
        self._note([*before, replace(entry, finished=False)])
        with workspace_faults("switching the jobs"):
            ids = {key: self._put_job(job) for key, job in jobs.items()}
        self._note([*before, entry])
        return ids

    def _entry(self, version: str, did: Did = "switched") -> Deployed:
        with workspace_faults("asking who is logged in"):
            by = self._workspace.user()
        return Deployed(version, self._clock().isoformat(timespec="seconds"), by, did)

    def _noted(self) -> list[Deployed]:
        where = f"{self._bundle.root}/{_HISTORY}"
        with workspace_faults("reading the history"):
            content = self._read(where)
        found: Any = [] if content is None else parse_json(content.decode(), where=where)
        try:
            return [Deployed(**each) for each in found]
        except TypeError:
            raise ConfigurationError("holds no history of deployments", where=where) from None

    def _note(self, history: Sequence[Deployed]) -> None:
        content = json.dumps([_written(each) for each in history], indent=1).encode()
        with workspace_faults("noting the deployment"):
            self._write_all({f"{self._bundle.root}/{_HISTORY}": content})

    def _put_job(self, job: Tree) -> int:
        settings = JobSettings.from_dict({key: each for key, each in job.items() if key != "permissions"})
        settings.run_as = JobRunAs.from_dict(dict(self._bundle.run_as)) if self._bundle.run_as else None
        known = self._known_job(job)
        if known is None:
            created = self._workspace.jobs.create(**_given(settings))
            job_id = int(created.job_id or 0)
        else:
            job_id = known
            self._workspace.jobs.reset(job_id, settings)
            if settings.continuous is not None:
                # It begins again by itself, as what it is now.
                self._workspace.jobs.cancel_all_runs(job_id=job_id)
        self._permit("jobs", str(job_id), job.get("permissions") or ())
        return job_id

    def _known_job(self, job: Tree) -> int | None:
        """Find a job by its name, and make sure that it is this agent's."""
        tags = job.get("tags") or {}
        for found in self._workspace.jobs.list(name=job["name"]):
            kept = (found.settings.tags if found.settings is not None else None) or {}
            deployment = found.settings.deployment if found.settings is not None else None
            if deployment is not None or any(kept.get(name) != tags.get(name) for name in _OURS):
                raise ConfigurationError(
                    "a job of this name is there and belongs to somebody else, or to the Databricks CLI: "
                    "rename one of them, or remove it",
                    where=str(job["name"]),
                )
            return int(found.job_id or 0)
        return None

    def _make_scope(self, scope: Tree) -> None:
        name, secrets = scope["name"], self._workspace.secrets
        if name not in [each.name for each in secrets.list_scopes()]:
            secrets.create_scope(name)
        for each in scope.get("permissions") or ():
            secrets.put_acl(name, _principal(each), AclPermission(each["level"]))

    def _make_schema(self, schema: Tree) -> None:
        full = f"{schema['catalog_name']}.{schema['name']}"
        if not _is_there(lambda: self._workspace.schemas.get(full)):
            self._workspace.schemas.create(
                schema["name"], schema["catalog_name"], comment=schema.get("comment")
            )
        self._grant("schema", full, schema)

    def _make_volume(self, volume: Tree) -> None:
        place = (volume["catalog_name"], volume["schema_name"], volume["name"])
        if not _is_there(lambda: self._workspace.volumes.read(".".join(place))):
            kind = VolumeType(volume.get("volume_type", "MANAGED"))
            self._workspace.volumes.create(*place, kind, comment=volume.get("comment"))
        self._grant("volume", ".".join(place), volume)

    def _grant(self, kind: str, full: str, resource: Tree) -> None:
        """Grant what is missing; what others have granted stays."""
        changes = [
            PermissionsChange(
                principal=each["principal"], add=[Privilege(name) for name in each["privileges"]]
            )
            for each in resource.get("grants") or ()
        ]
        if changes:
            self._workspace.grants.update(kind, full, changes=changes)

    def _permit_folder(self) -> None:
        wanted = [{**each, "level": _ON_A_FOLDER[each["level"]]} for each in self._bundle.permissions]
        if wanted:
            folder = self._workspace.files.get_status(self._bundle.root) if self._is_made() else None
            number = "0" if folder is None else str(folder.object_id)
            self._permit("directories", number, wanted)

    def _is_made(self) -> bool:
        return _is_there(lambda: self._workspace.files.get_status(self._bundle.root))

    def _permit(self, kind: str, number: str, wanted: Sequence[Mapping[str, str]]) -> None:
        listed = [
            {
                **{name: value for name, value in each.items() if name != "level"},
                "permission_level": each["level"],
            }
            for each in wanted
        ]
        if listed:
            requests = [AccessControlRequest.from_dict(each) for each in listed]
            self._workspace.permissions.update(kind, number, access_control_list=requests)

    def _write_all(self, files: Mapping[str, bytes]) -> None:
        for folder in sorted({path.rpartition("/")[0] for path in files}):
            self._workspace.files.mkdirs(folder)
        for path, content in files.items():
            notebook = content.startswith(b"# Databricks notebook source")
            self._workspace.files.import_(
                path.removesuffix(".py") if notebook else path,
                content=base64.b64encode(content).decode(),
                format=ImportFormat.AUTO if not notebook else ImportFormat.SOURCE,
                language=None if not notebook else Language.PYTHON,
                overwrite=True,
            )

    def _read(self, path: str) -> bytes | None:
        try:
            found = self._workspace.files.export(path, format=ExportFormat.AUTO)
        except DatabricksError as fault:
            if absent(fault):
                return None
            raise
        return base64.b64decode(found.content or "")


def _is_there(read: Callable[[], object]) -> bool:
    try:
        read()
    except DatabricksError as fault:
        if absent(fault):
            return False
        raise
    return True


def _switched(entries: Sequence[Deployed]) -> Deployed | None:
    return next((each for each in reversed(entries) if each.did == "switched"), None)


def _written(each: Deployed) -> dict[str, Any]:
    """What is as always is left out, so that earlier versions of flagstream read it, too."""
    usual = {one.name: one.default for one in fields(Deployed)}
    return {name: value for name, value in asdict(each).items() if value != usual[name]}


def _given(settings: JobSettings) -> dict[str, Any]:
    return {name: each for name, each in vars(settings).items() if each is not None}


def _principal(each: Mapping[str, str]) -> str:
    return next(each[name] for name in _PRINCIPALS if name in each)
