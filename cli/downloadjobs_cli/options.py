"""The options that every command has, before its name or behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from downloadjobs_cli.output import Output
from downloadjobs_core.job import MAX_FILE_ID, MIN_FILE_ID

if TYPE_CHECKING:
    import httpx

    from downloadjobs_cli.client import ApiClient

DEFAULT_API: Final = "http://localhost:3000"

LONGEST_SECONDS: Final = 10**7
"""Four months: beyond is a mistake, such as `inf`."""


class FileId(click.IntRange):
    """A file's id."""

    name = "file id"


FILE_ID: Final = FileId(MIN_FILE_ID, MAX_FILE_ID)

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass(slots=True)
class Options:
    """What the shared options say.

    Attributes:
        api: where the API is, without a slash at the end.
        user: who asks; None to let the API decide whether it must know.
        token: a bearer token.
        api_given: whether the user said where the API is.
        namespace: where a DownloadJob is; None for that of the context.
        context: of the kubeconfig; None for the current one.
        kubeconfig: its path; None for kubectl's own choice.
        as_json: print JSON.
        store: where to connect for results, instead of the hosts that their URLs name; None for these.
        transport: stands in for the network in tests.
        output: where to print.
    """

    api: str = DEFAULT_API
    user: str | None = None
    token: str | None = None
    api_given: bool = False
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    as_json: bool = False
    store: str | None = None
    transport: httpx.BaseTransport | None = None
    output: Output = field(init=False)

    def __post_init__(self) -> None:
        """Give the output the same mind about JSON."""
        self.output = Output(as_json=self.as_json)

    def take(self, name: str, value: Any) -> None:  # noqa: ANN401 - whatever the option's type gives
        """Take what a command's own options say; what they leave out stays."""
        if value is None or value is False:
            return
        setattr(self, name, value)
        self.api_given |= name == "api"
        self.output.as_json = self.as_json

    def client(self) -> ApiClient:
        """A client of the API these options name."""
        from downloadjobs_cli.client import ApiClient, Login

        return ApiClient(Login(self.api, self.user, self.token), self.transport)


class ApiUrl(click.ParamType[str]):
    """The address of an API: `http(s)://host[:port][/path]`, or just `host:port`."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        """Check it, and give it a scheme where it has none."""
        import httpx

        url = str(value) if "://" in str(value) else f"http://{value}"
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises ValueError for a port that is none
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL):
            self.fail(f"{value!r} is no address.", param, ctx)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            self.fail(f"{value!r} is no address such as https://downloads.example.com.", param, ctx)
        return url.rstrip("/")


class HeaderText(click.ParamType[str]):
    """Text that an HTTP header can carry."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        """Refuse what no header can carry."""
        text = str(value)
        if not (text.isascii() and text.isprintable()):
            self.fail("may hold only printable ASCII: it goes into an HTTP header.", param, ctx)
        return text


class Seconds(click.ParamType[float]):
    """A time span in seconds, finite and not negative; fractions are allowed."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        """Read it."""
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        if not 0 <= seconds <= LONGEST_SECONDS:
            self.fail(f"{value!r} is not between 0 and {LONGEST_SECONDS:,} seconds.", param, ctx)
        return seconds


class ByteSize(click.ParamType[int]):
    """A number of bytes, with or without a unit: `300`, `64k`, `4MB`, `1.5GiB`."""

    name = "size"
    _pattern = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's
        """Read it; `k` is 1,000, `Ki` is 1,024."""
        if isinstance(value, int):
            return value
        match = self._pattern.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size such as 300, 64k, 4MB or 1.5GiB.", param, ctx)
        number, unit, binary = match.groups()
        power = " kmgt".index(unit.lower()) if unit else 0
        return int(float(number) * (1024 if binary else 1000) ** power)


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's
    ctx.ensure_object(Options).take(str(param.name), value)


json_option = click.option(
    "--json", "as_json", is_flag=True, expose_value=False, callback=_take, help="Print JSON, for scripts."
)


store_option = click.option(
    "--store",
    type=ApiUrl(),
    metavar="URL",
    envvar="DOWNLOADJOBS_STORE",
    expose_value=False,
    callback=_take,
    help="Where to connect for the result, if the host that its URL names cannot be reached from here.  [env:"
    " DOWNLOADJOBS_STORE]",
)


def cluster_options(function: AnyFunction) -> AnyFunction:
    """Add the options by which kubectl is told where to go, under the names they have there."""
    for option in (
        click.option(
            "--kubeconfig", metavar="FILE", expose_value=False, callback=_take,
            help="Which kubeconfig, for dj/NAME.",
        ),
        click.option(
            "--context", metavar="C", expose_value=False, callback=_take,
            help="Which context of the kubeconfig, for dj/NAME.",
        ),
        click.option(
            "-n", "--namespace", metavar="N", expose_value=False, callback=_take,
            help="The DownloadJob's namespace, for dj/NAME.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def shared_options(*, environment: bool = False) -> Callable[[AnyFunction], AnyFunction]:
    """Add the shared options to a command.

    Args:
        environment: whether they have defaults from the environment; the group has, so that an option
            before the command's name is not overruled by the command's own default.
    """

    def variable(name: str) -> str | None:
        return f"DOWNLOADJOBS_{name}" if environment else None

    def decorate(function: AnyFunction) -> AnyFunction:
        for option in (
            json_option,
            click.option(
                "--token", type=HeaderText(), metavar="T", envvar=variable("TOKEN"), expose_value=False,
                callback=_take, help="Bearer token, where the API wants one.  [env: DOWNLOADJOBS_TOKEN]",
            ),
            click.option(
                "--user", type=HeaderText(), metavar="ID", envvar=variable("USER"), expose_value=False,
                callback=_take, help="Who asks; sent as x-user-id.  [env: DOWNLOADJOBS_USER]",
            ),
            click.option(
                "--api", type=ApiUrl(), metavar="URL", envvar=variable("API"), expose_value=False,
                callback=_take,
                help=f"Where the API is.  [env: DOWNLOADJOBS_API; default: {DEFAULT_API}]",
            ),
        ):  # fmt: skip
            function = option(function)
        return function

    return decorate
