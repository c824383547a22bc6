"""The way to the API that answers a claim: an address that the user knows, or a port forwarded to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, Self

import httpx

from downloadjobs_cli.answers import Reply, Result
from downloadjobs_cli.client import ApiClient, Login
from downloadjobs_cli.errors import CliError, RefusedError, SettingsError, TransientError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.kubectl import Kubectl, KubectlError, Reason
from downloadjobs_cli.port_forward import PortForward, Service

DEFAULT_SERVICE: Final = "downloadjobs-api"
DEFAULT_NAMESPACE: Final = "downloadjobs"
"""Where the API is looked for, after the DownloadJob's own namespace."""

NO_POD: Final = "timed out waiting for the condition"
"""What kubectl says when it found no running pod."""

NO_SERVICE: Final = "no-api-service"
INSTEAD: Final = "Name the API's address by --api (or DOWNLOADJOBS_API), or its Service by --api-service."


class ClaimApi(Protocol):
    """Where claims are answered."""

    def claim(self, job_id: str, nonce: str) -> Reply[Result]:
        """Ask for a claimed job's result."""


def candidates(named: str | None, namespace: str) -> list[Service]:
    """The Services that may be the API's, in the order they are tried.

    Args:
        named: what the user said, if they did.
        namespace: the DownloadJob's.

    Raises:
        SettingsError: what they said is no Service's name.
    """
    if named is None:
        return [Service(place, DEFAULT_SERVICE) for place in dict.fromkeys((namespace, DEFAULT_NAMESPACE))]
    service = Service.parse(named, namespace)
    if service is None:
        raise SettingsError(f"--api-service takes [NAMESPACE/]NAME[:PORT], and {named!r} is none.")
    return [service]


class ForwardedApi:
    """The API behind a Service, through a forwarded port. It is opened anew when what it led to is gone.

    Close it, or use it as a context manager.

    Args:
        kubectl: forwards.
        services: tried in order; the first that exists is the one.
        transport: stands in for the network in tests.
    """

    def __init__(
        self, kubectl: Kubectl, services: Sequence[Service], transport: httpx.BaseTransport | None = None
    ) -> None:
        self._kubectl = kubectl
        self._services = services
        self._transport = transport
        self._forward: PortForward | None = None
        self._client: ApiClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def open(self) -> None:
        """Forward the port, if that is not done.

        Raises:
            RefusedError: the user may not.
            CliError: there is no such Service, or no pod behind it.
            TransientError: the cluster does not answer.
        """
        if self._client is None:
            self._forward = self._forwarded()
            self._client = ApiClient(Login(self._forward.url), self._transport)

    def close(self) -> None:
        """End what was started."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._forward is not None:
            self._forward.stop()
            self._forward = None

    def claim(self, job_id: str, nonce: str) -> Reply[Result]:
        """Ask for a claimed job's result.

        Raises:
            RefusedError: as the API says.
            TransientError: nothing answers.
            CliError: as for `open`.
        """
        if self._forward is not None and self._forward.running:
            # It stays when its pod was replaced, and only then proves to lead nowhere: another one may do.
            with suppress(_SilentError):
                return self._ask(job_id, nonce)
        self.close()
        try:
            return self._ask(job_id, nonce)
        except _SilentError as error:
            self.close()
            names = " or ".join(map(str, self._services))
            raise TransientError(
                f"The API does not answer through kubectl port-forward to the Service {names}."
                f" Are its pods ready? {INSTEAD}",
                code="unreachable",
            ) from error

    def _ask(self, job_id: str, nonce: str) -> Reply[Result]:
        self.open()
        assert self._client is not None  # noqa: S101 - it is open
        try:
            return self._client.claim(job_id, nonce)
        except TransientError as error:
            if error.code == TransientError.code:  # no HTTP answer
                raise _SilentError from error
            raise

    def _forwarded(self) -> PortForward:
        failures: list[tuple[Service, KubectlError]] = []
        for service in self._services:
            try:
                forward = PortForward(self._kubectl, service)
            except KubectlError as error:
                failures.append((service, error))
                if error.reason not in {Reason.NOT_FOUND, Reason.FORBIDDEN}:
                    break
            else:
                self._services = [service]
                return forward
        raise _no_service(failures)


class _SilentError(Exception):
    """Nothing answered behind the port."""


def _no_service(failures: Sequence[tuple[Service, KubectlError]]) -> CliError:
    """Why no port could be forwarded: what is most worth telling of several."""
    told = " ".join(f"{service}: {error.text.rstrip('.')}." for service, error in failures)
    reasons = [error.reason for _, error in failures]
    if Reason.FORBIDDEN in reasons:
        service = failures[reasons.index(Reason.FORBIDDEN)][0]
        return RefusedError(
            f"You may not forward a port to the API's Service {service}: you lack the rights to get services,"
            " to get and list pods, or to create pods/portforward in that namespace."
            f" {INSTEAD} (kubectl: {told})",
            code=Reason.FORBIDDEN.value,
        )
    if set(reasons) == {Reason.NOT_FOUND}:
        names = " nor ".join(str(service) for service, _ in failures)
        return CliError(
            f"There is no Service {names}. {INSTEAD}", code=NO_SERVICE, exit_code=ExitCode.UNREACHABLE
        )
    why = "no pod of its Service runs" if NO_POD in told else "no port can be forwarded to its Service"
    return CliError(
        f"The API cannot be reached: {why}. {INSTEAD} (kubectl: {told})",
        code=NO_SERVICE,
        exit_code=ExitCode.UNREACHABLE,
    )
