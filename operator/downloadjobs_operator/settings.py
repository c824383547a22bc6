"""The operator's settings."""

from __future__ import annotations

import re
import secrets
import socket
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from downloadjobs_core.settings import (
    Bucket,
    Ceilings,
    CommonSettings,
    Port,
    QueueSettings,
    RedisSettings,
    WebhookAddressSettings,
)
from downloadjobs_core.states import Priority

OWN_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

EVERYWHERE: Final = "*"

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class MirrorMode(StrEnum):
    """Which jobs that came by REST are shown as DownloadJobs."""

    NONE = "none"
    ACTIVE = "active"
    """Those that have not ended."""
    ALL = "all"
    """Also ended ones, for as long as their records are kept."""


def _namespace(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError(
            f"{value!r} is no namespace's name: lower-case letters, digits and hyphens, 63 at most"
        )
    return value


def _namespaces(value: object) -> object:
    """Names with commas between, or `*` for all."""
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in value.split(",")))))
    if EVERYWHERE in names and len(names) > 1:
        raise ValueError("must be namespaces, or * alone for all of them")
    return tuple(name if name == EVERYWHERE else _namespace(name) for name in names)


Namespace = Annotated[str, BeforeValidator(_namespace)]
Namespaces = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_namespaces)]


class OperatorSettings(RedisSettings, QueueSettings, WebhookAddressSettings, CommonSettings):
    """Everything the operator reads from the environment."""

    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 - a pod's own address
    port: Port = Field(8080, description="health")
    pod_name: str | None = Field(
        None, description="this process, among several; by default the host's name and a random number"
    )
    operator_namespace: Namespace | None = Field(
        None, description="where its Lease is; in a pod, the pod's own namespace by default"
    )
    watch_namespaces: Namespaces = Field(
        (), description="where DownloadJobs are served; its own namespace by default, * for all"
    )
    user_id_namespaces: Namespaces = Field((), description="where a DownloadJob may name a user; * for all")
    priority_ceilings: Ceilings = Field(
        {"*": Priority.NORMAL},
        description='the highest class: one for all, or JSON by namespace: {"*": "low", "team-a": "high"}',
    )
    mirror_api_jobs: MirrorMode = MirrorMode.NONE
    mirror_namespace: Namespace | None = Field(None, description="where jobs that came by REST are shown")
    s3_bucket_name: Bucket | None = Field(None, description="told in a DownloadJob's status")
    s3_results_bucket: Bucket | None = Field(None, description="told in a DownloadJob's status")
    leader_election: bool = Field(default=True, description="hold a Lease: one operator works at a time")
    leader_lease_name: str = "downloadjobs-operator"
    leader_lease_seconds: int = Field(15, ge=5, le=300, description="after which a lost operator is replaced")
    peering_name: str | None = Field(
        None, description="a KopfPeering to pause for operators with more priority"
    )
    peering_priority: int = Field(0, ge=0, le=32_767)
    resync_seconds: float = Field(300, ge=1, description="between two comparisons of all that is unfinished")
    status_patches_per_second: float = Field(50, gt=0, description="for progress, of all jobs")
    worker_deployment: str | None = Field(
        None, description="the workers' Deployment, in its own namespace, to be scaled; none by default"
    )
    autoscaler_file: Path | None = Field(
        None, description="JSON or YAML, read again when it changes: how many workers, see autoscaler.md"
    )
    finalizer_give_up_seconds: float = Field(
        600, ge=1, description="after which a deletion goes on although Redis cannot be reached"
    )

    webhooks_enabled: bool = Field(
        default=False,
        description="workers sign webhooks; otherwise a DownloadJob with a callbackUrl is refused",
    )

    @field_validator("mirror_namespace")
    @classmethod
    def _mirrors_have_a_place(cls, namespace: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("mirror_api_jobs", MirrorMode.NONE) is MirrorMode.NONE:
            return namespace
        if namespace is None:
            raise ValueError(
                "must be set where MIRROR_API_JOBS is active or all: a namespace for mirrors alone"
            )
        if namespace in info.data.get("watch_namespaces", ()):
            raise ValueError(
                f"{namespace!r} is in WATCH_NAMESPACES as well, but a DownloadJob that somebody creates there"
                " is refused. Name a namespace for mirrors alone: it is watched without standing there"
            )
        return namespace

    @cached_property
    def identity(self) -> str:
        """Which of several operators this is; two of one host differ, or both would lead."""
        return self.pod_name or f"{socket.gethostname()}_{secrets.token_hex(8)}"

    @property
    def own_namespace(self) -> str:
        """Where the operator itself is."""
        if self.operator_namespace is not None:
            return self.operator_namespace
        try:
            return OWN_NAMESPACE_FILE.read_text(encoding="ascii").strip()
        except OSError:
            return "default"

    @property
    def mirrors_in(self) -> str | None:
        """The namespace of mirrors, if there are any."""
        return None if self.mirror_api_jobs is MirrorMode.NONE else self.mirror_namespace

    @property
    def served(self) -> tuple[str, ...]:
        """The namespaces to watch; empty for all."""
        if EVERYWHERE in self.watch_namespaces:
            return ()
        named = self.watch_namespaces or (self.own_namespace,)
        return named if self.mirrors_in is None or self.mirrors_in in named else (*named, self.mirrors_in)

    @property
    def results_bucket(self) -> str | None:
        """The bucket of results, where it is known."""
        return self.s3_results_bucket or self.s3_bucket_name
