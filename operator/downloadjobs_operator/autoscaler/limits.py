"""The autoscaler's settings: a mounted file that is read again, so that a change needs no restart."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_operator.autoscaler.decision import Limits, Mode

MOST_PODS: Final = 10_000
"""More is a slip of the finger; no cluster that Kubernetes supports has so many for one Deployment."""

LONGEST_SECONDS: Final = 86_400.0

DEFAULTS: Final = Limits()

log = logs.logger(__name__)


class LimitsError(DownloadJobsError):
    """The settings cannot be used.

    Args:
        faults: each with the setting's name, in a sentence.
        source: the file's path, or whatever people know them by.
    """

    def __init__(self, faults: list[str], source: str) -> None:
        super().__init__(f"{source}: {'; '.join(faults)}")
        self.faults = faults


class LimitsDocument(BaseModel):
    """The file: every setting may be left out. Numbers are numbers, not texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Mode = Field(DEFAULTS.mode, strict=False)
    min: int = Field(DEFAULTS.min, ge=0, le=MOST_PODS)
    max: int = Field(DEFAULTS.max, ge=1, le=MOST_PODS)
    concurrency: int = Field(DEFAULTS.concurrency, ge=1, le=1_000)
    target_wait_seconds: float = Field(
        DEFAULTS.target_wait_seconds, alias="targetWaitSeconds", gt=0, le=LONGEST_SECONDS
    )
    cooldown_seconds: float = Field(
        DEFAULTS.cooldown_seconds, alias="cooldownSeconds", ge=0, le=LONGEST_SECONDS
    )
    stale_seconds: float = Field(DEFAULTS.stale_seconds, alias="staleSeconds", gt=0, le=LONGEST_SECONDS)
    pod_start_seconds: float = Field(
        DEFAULTS.pod_start_seconds, alias="podStartSeconds", ge=0, le=LONGEST_SECONDS
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must not be above max (they are {self.min} and {self.max})")
        return self

    def limits(self) -> Limits:
        """What a decision takes."""
        return Limits(**{name: getattr(self, name) for name in type(self).model_fields})


def parse(document: object, source: str = "the autoscaler's settings") -> Limits:
    """Limits from a document that was decoded already.

    Raises:
        LimitsError: it is wrong, with every fault.
    """
    if document is None:
        document = {}
    if not isinstance(document, Mapping):
        raise LimitsError(['must be an object such as {"min": 0, "max": 10}'], source)
    try:
        return LimitsDocument.model_validate(dict(document)).limits()
    except ValidationError as error:
        raise LimitsError([_fault(fault) for fault in error.errors(include_url=False)], source) from None


def _fault(fault: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = ", ".join(field.alias or key for key, field in LimitsDocument.model_fields.items())
        return f"{name}: there is no such setting; there are {known}"
    return f"{name}: {message} (it is {fault['input']!r})" if name else message


def decode(text: str, source: str = "the autoscaler's settings") -> object:
    """A document from JSON, or from YAML where PyYAML is installed, as it is beside kopf.

    Raises:
        LimitsError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        fault = f"is no JSON: {error}"
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise LimitsError([f"{fault} (YAML can be read where PyYAML is installed)"], source) from None
    try:
        document: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LimitsError([f"is neither JSON nor YAML: {' '.join(str(error).split())}"], source) from None
    return document


class LimitsFile:
    """A file of settings, and the last good limits that it held.

    Kubernetes changes a mounted ConfigMap by turning a link: only the content tells a change for certain.
    It is a few hundred bytes.

    Attributes:
        limits: the last good ones.
        fault: what is wrong with the file as it is now; None if nothing is.

    Raises:
        LimitsError: the file is missing or wrong at the beginning, when there are no good limits to keep.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = self._read()
        self.limits: Limits = self._parse(self._content)
        self.fault: str | None = None

    def look(self) -> bool:
        """Read the file again.

        A file that is wrong or missing changes nothing: the last good limits stay. The log tells it once,
        and `fault` for as long as it lasts.

        Returns:
            Whether the limits are others than before.
        """
        try:
            content = self._read()
            limits = self.limits if content == self._content else self._parse(content)
        except LimitsError as error:
            self._complain(str(error))
            return False
        if self.fault is not None:
            log.info("the autoscaler's settings are good again", path=str(self._path))
            self.fault = None
        self._content = content
        if limits == self.limits:
            return False
        log.info("the autoscaler's settings changed", path=str(self._path))
        self.limits = limits
        return True

    def _complain(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("the autoscaler's settings are wrong; the last good ones stay", error=fault)
        self.fault = fault

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise LimitsError([error.strerror or str(error)], str(self._path)) from None

    def _parse(self, content: bytes) -> Limits:
        source = str(self._path)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise LimitsError(["is no UTF-8"], source) from None
        return parse(decode(text, source), source)
