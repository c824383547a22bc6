"""The docs say what the code does: tables and examples are read from the pages and compared."""

from __future__ import annotations

import ast
import dataclasses
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, get_origin

import click
import falcon.inspect
import msgspec
import pytest
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import downloadjobs_api
from downloadjobs_api.app import create_app
from downloadjobs_api.cursors import position_of
from downloadjobs_api.dashboard import dashboard_config
from downloadjobs_api.drain import Drain
from downloadjobs_api.event_documents import event_document
from downloadjobs_api.jobs import item_document, job_document, queue_document
from downloadjobs_api.problems import Kind, document
from downloadjobs_api.settings import ApiSettings
from downloadjobs_api.stats import stats_document
from downloadjobs_cli.autoscaler_commands import DEFAULT_OPERATOR
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.main import cli
from downloadjobs_cli.options import DEFAULT_API
from downloadjobs_core import logs
from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectChangedError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    ResultTooLargeError,
)
from downloadjobs_core.event_stream import JobEvent
from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.jobstore import Place, Position
from downloadjobs_core.leases import Outcome
from downloadjobs_core.objectstore.protocol import MAX_PARTS
from downloadjobs_core.states import TRANSITIONS, JobState
from downloadjobs_core.statistics import Statistics
from downloadjobs_core.upkeep import Task
from downloadjobs_core.webhook_addresses import AddressRules, callback_of
from downloadjobs_operator.settings import OperatorSettings
from downloadjobs_worker import manifest
from downloadjobs_worker.attempt import failure_of
from downloadjobs_worker.reading import CHUNK_BYTES
from downloadjobs_worker.settings import UPLOAD_MEMORY_BYTES, WorkerSettings
from downloadjobs_worker.uploading import LEAST_BUFFERS, PARTS_AIM
from support_events import Parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LUA = ROOT / "core" / "downloadjobs_core" / "lua"
MIB = 1024 * 1024
NOT_SET = "–"

KINDS = {
    kind.code: kind
    for found in pkgutil.iter_modules(downloadjobs_api.__path__)
    for kind in vars(import_module(f"downloadjobs_api.{found.name}")).values()
    if isinstance(kind, Kind)
}
"""Every kind of problem, by its code."""


def page(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """A part of a page, from its heading to the next one of the same level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"no heading {title!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def rows(text: str) -> list[list[str]]:
    """The cells of all tables' rows, without the heads."""
    lines = re.findall(r"^\|(?! ---)(.*)\|$(?!\n\| ---)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def ticked(cell: str) -> list[str]:
    """What stands in ticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def examples(text: str) -> list[str]:
    """The JSON examples of a page, as they stand there."""
    return re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor that a heading gets."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page."""
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)}


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """Where a page's links within the project lead: a file, and an anchor or nothing."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if "://" not in target:
            name, _, fragment = target.partition("#")
            yield ((path.parent / name).resolve() if name else path), fragment


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """Each link within the project names a file that is there, and a heading of it."""
    for target, fragment in links(path):
        assert target.exists(), f"{path.name} links to {target}, which is not there"
        named = not fragment or fragment in anchors(target)
        assert named, f"{path.name}: no heading #{fragment} in {target.name}"


def test_every_page_can_be_found() -> None:
    """From docs/README.md, links lead to every page of docs/."""
    found, waiting = set[Path](), [DOCS / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in found and path.suffix == ".md" and path.is_relative_to(DOCS):
            found.add(path)
            waiting += [target for target, _ in links(path)]
    assert found == set(DOCS.rglob("*.md"))


SHARED = section(page("settings.md"), "The API and the workers")
SETTINGS: list[tuple[type[BaseSettings], str]] = [
    (ApiSettings, SHARED + section(page("settings.md"), "The API")),
    (WorkerSettings, SHARED + section(page("settings.md"), "The worker")),
    (
        OperatorSettings,
        "".join(
            section(page("settings.md"), title)
            for title in ("General", "Redis", "The queue", "Webhooks", "The operator")
        ),
    ),
]


def settings_rows(text: str) -> dict[str, tuple[str, str]]:
    """The default and what is allowed, by a setting's name."""
    found = {ticked(row[0])[0]: (row[1], row[3]) for row in rows(text)}
    assert len(found) == len(rows(text)), "a setting stands twice"
    return found


def shown_default(default: object) -> str:
    """A default as the page shows it."""
    match default:
        case None | ():
            return NOT_SET
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return f"`{','.join(f'{one:g}' if isinstance(one, float) else str(one) for one in default)}`"
        case dict():
            return f"`{default['*']}`"
        case float():
            return f"`{default:g}`"
        case _:
            return f"`{default}`"


def shown_limits(field: FieldInfo) -> str:
    """What a field allows, as the page shows it: a range, or a choice."""
    found: dict[str, Any] = {}

    def walk(annotation: object, metadata: list[Any]) -> None:
        for item in metadata:
            if isinstance(item, FieldInfo):
                walk(None, item.metadata)
            found.update({name: getattr(item, name) for name in ("ge", "gt", "le") if hasattr(item, name)})
        for inner in get_args(annotation):
            walk(inner, list(getattr(inner, "__metadata__", [])))

    walk(field.annotation, field.metadata)
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            return ", ".join(f"`{value}`" for value in get_args(kind))
        if isinstance(kind, type) and issubclass(kind, StrEnum) and get_origin(field.annotation) is not dict:
            return ", ".join(f"`{value}`" for value in kind)
    if "gt" in found:
        return f"more than {found['gt']}"
    if "le" in found:
        return f"{found['ge']} to {found['le']}"
    return f"{found['ge']} or more" if "ge" in found else ""


@pytest.mark.parametrize(("model", "text"), SETTINGS, ids=["api", "worker", "operator"])
def test_settings_are_all_told(model: type[BaseSettings], text: str) -> None:
    """settings.md has every setting that a process reads, and no other."""
    assert set(settings_rows(text)) == {name.upper() for name in model.model_fields}


@pytest.mark.parametrize(("model", "text"), SETTINGS, ids=["api", "worker", "operator"])
def test_settings_have_their_defaults_and_limits(model: type[BaseSettings], text: str) -> None:
    """settings.md has the default of each setting, and what it may be, as the process has them."""
    told = settings_rows(text)
    known = {
        name.upper(): (shown_default(field.default), shown_limits(field))
        for name, field in model.model_fields.items()
    }
    assert told == known


def cli_parameters(command: click.Command) -> Iterator[click.Parameter]:
    """The options and arguments of a command, and of all commands below it."""
    yield from command.params
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from cli_parameters(below)


def test_settings_of_the_command_line_are_told() -> None:
    """settings.md has the command line's variables, and where the API is by default."""
    told = {ticked(row[0])[0]: row[1] for row in rows(section(page("settings.md"), "The command line"))}
    known = {str(option.envvar) for option in cli_parameters(cli) if option.envvar}
    assert set(told) == {name for name in known if name.startswith("DOWNLOADJOBS_")}
    assert told["DOWNLOADJOBS_API"] == f"`{DEFAULT_API}`"
    assert told["DOWNLOADJOBS_OPERATOR"] == f"`{DEFAULT_OPERATOR}`"


def test_every_problem_has_a_page() -> None:
    """docs/problems/ has one page for each code, and its index lists each with its status and title."""
    assert {path.stem for path in (DOCS / "problems").glob("*.md")} - {"README"} == set(KINDS)
    listed = {(row[0], row[1], row[2]) for row in rows(page("problems/README.md"))}
    assert listed == {
        (str(kind.status.value), f"[{code}]({code}.md)", kind.title) for code, kind in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_problems_page_shows_what_is_answered(kind: Kind) -> None:
    """The page of a code begins with status and title, and its example is the document that the API makes."""
    text = page(f"problems/{kind.code}.md")
    assert text.startswith(f"# {kind.code}\n\nHTTP {kind.status.value}. {kind.title}.\n")
    (example,) = map(json.loads, examples(text))
    ids = example["requestId"], example["traceId"]
    made = document(kind, example["message"], *ids, example.get("errors", ()))
    assert example == json.loads(made)
    assert "**What to do.**" in text


def lua_calls(name: str) -> Iterator[list[str]]:
    """The arguments of every call of a function in the scripts, as they are written there."""
    for script in sorted(LUA.rglob("*.lua")):
        text = re.sub(r"--[^\n]*", "", script.read_text(encoding="utf-8"))
        for call in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text):
            arguments, depth, quoted = [""], 1, False
            for char in text[call.end() :]:
                quoted ^= char == "'"
                if not quoted:
                    depth += (char in "({") - (char in ")}")
                if not depth:
                    break
                if char == "," and depth == 1 and not quoted:
                    arguments.append("")
                else:
                    arguments[-1] += char
            yield [argument.strip() for argument in arguments]


def literals(arguments: list[str]) -> set[str]:
    """Those of the arguments that are texts."""
    return {argument[1:-1] for argument in arguments if re.fullmatch(r"'[a-z_]+'", argument)}


def record_fields() -> set[str]:
    """Every field of a job's hash that the scripts read or write, or are given."""
    found = set[str]()
    for command, *arguments in lua_calls("redis.call"):
        if arguments and arguments[0].startswith("job_key("):
            named = {"'HSET'": arguments[1::2], "'HINCRBY'": arguments[1:2]}.get(command, arguments[1:])
            found |= literals(named)
    for arguments in lua_calls("lease_to"):
        first = next((index for index, argument in enumerate(arguments) if argument.startswith("'")), 0)
        found |= literals(arguments[first::2])
    for arguments in lua_calls("note_call"):
        found |= literals(arguments[2::2])
    callback = callback_of("https://hooks.example.com/", AddressRules())
    new = NewJob(job_id="", user="", file_ids=(), total_file_ids=0, max_attempts=1, callback=callback)
    given = [*new.fields()[::2], *Outcome(JobState.FAILED).fields()[::2]]
    return found | {str(name) for name in given}


def test_the_job_record_is_told_whole() -> None:
    """job-record.md has every field of the hash, and what is read of it."""
    told = {name for row in rows(page("job-record.md")) for name in ticked(row[0])}
    assert told == record_fields()
    read = {field.name for field in dataclasses.fields(Job)} - {"job_id"} | {"id"}
    assert read <= told


def test_the_examples_of_job_records_can_be_read() -> None:
    """The hashes of job-record.md are records: of a job that has ended, and of one that runs."""
    ended, running = (json.loads(text) for text in examples(page("job-record.md")))
    assert set(ended) | set(running) <= record_fields()
    assert Job.from_hash(ended).state is JobState.COMPLETED_WITH_ERRORS
    assert ended["result_key"] == f"results/{ended['id']}/{ended['ended_token']}.zip"
    job = Job.from_hash(running)
    assert (job.state, job.attempt, job.failures) == (JobState.PROCESSING, 2, 1)
    assert job.token
    assert job.token != running["ended_token"]


def test_the_job_detail_is_that_of_the_record() -> None:
    """job-detail.md's first answer is what the API makes of job-record.md's first hash; the second waits."""
    record = json.loads(examples(page("job-record.md"))[0])
    ended, waiting = (json.loads(text) for text in examples(page("job-detail.md")))
    assert job_document(Job.from_hash(record), None) == ended
    assert set(waiting) == set(ended)
    assert set(waiting["queue"]) == set(queue_document(Place("ready")) or ())


def test_the_list_of_jobs_is_that_of_the_record() -> None:
    """job-list.md's answer is the first hash of job-record.md, and goes on behind that job."""
    record = Job.from_hash(json.loads(examples(page("job-record.md"))[0]))
    (shown,) = map(json.loads, examples(page("job-list.md")))
    assert shown["items"] == [item_document(record, None)]
    assert position_of(record.user, shown["nextCursor"]) == Position(str(record.created_us), record.job_id)
    told = {name for row in rows(page("job-list.md")) for name in ticked(row[0])}
    assert told == {"state", "limit", "cursor"}


def test_members_of_documents_are_told() -> None:
    """The tables of job-detail.md and manifest.md have every member of their examples."""
    (shown,) = map(json.loads, examples(page("manifest.md")))
    told = {name for row in rows(page("manifest.md")) for name in ticked(row[0])}
    assert told == set(shown) | set(shown["files"][0])
    detail = json.loads(examples(page("job-detail.md"))[0])
    told = {name for row in rows(page("job-detail.md")) for name in ticked(row[0])}
    assert told | {"startedAt", "updatedAt"} == set(detail)


def test_the_manifest_is_what_a_worker_writes() -> None:
    """The example of manifest.md, decoded and encoded, gives the same bytes."""
    (example,) = examples(page("manifest.md"))
    decoded = msgspec.json.decode(example.encode(), type=manifest.Manifest, strict=True)
    assert manifest.encode(decoded) == example.encode()
    assert {file.status for file in decoded.files} == {"ok", "error"}


def test_the_numbers_of_the_page_are_what_is_answered() -> None:
    """dashboard.md's examples are what the API makes, and its tables have every member of them."""
    config, numbers = (json.loads(text) for text in examples(page("dashboard.md")))
    assert dashboard_config(ApiSettings(), mock_storage=False) == config
    found = Statistics(
        waiting=12, running=7, slots=8, finished_per_minute=14.21, mean_service_seconds=21.4,
        oldest_waiting_seconds=48, own_waiting=1, own_running=1, now_us=1_795_512_600_000_000,
    )  # fmt: skip
    assert stats_document(found) == numbers
    told = {name for row in rows(section(page("dashboard.md"), "Numbers")) for name in ticked(row[0])}
    assert told == set(numbers)
    told = {
        name for row in rows(section(page("dashboard.md"), "Its configuration")) for name in ticked(row[0])
    }
    assert told == set(config)


EVERY_EVENT: Final = frozenset(
    {
        "job",
        "kind",
        "state",
        "at_us",
        "files_done",
        "files_total",
        "files_failed",
        "bytes_done",
        "bytes_total",
    }
)


def emitted() -> dict[str, set[str]]:
    """The fields of each kind of event, beside those that all have."""
    found: dict[str, set[str]] = {}
    for arguments in lua_calls("emit"):
        kinds = literals(arguments[1:2])
        for kind in kinds:
            found.setdefault(kind, set()).update(literals(arguments[4::2]))
    return found


def test_events_are_told_by_kind() -> None:
    """events.md has every kind of event that the scripts write, with its fields."""
    entries = section(page("events.md"), "The stream in Redis")
    common, kinds = (rows(part) for part in entries.split("And each kind these:"))
    assert {name for row in common for name in ticked(row[0])} == {*EVERY_EVENT, "reader"}
    assert {ticked(row[0])[0]: set(ticked(row[2])) for row in kinds} == emitted()


def test_the_example_of_events_is_a_life() -> None:
    """The entries of events.md have the fields of their kinds, and tell of one job to its end."""
    (example,) = examples(page("events.md"))
    entries = [fields for _, fields in json.loads(example)]
    for entry in entries:
        assert set(entry) == EVERY_EVENT | emitted()[entry["kind"]]
    assert len({entry["job"] for entry in entries}) == 1
    kinds = [entry["kind"] for entry in entries]
    assert (kinds[:2], kinds[-1]) == (["queued", "started"], "finished")


def test_the_stream_of_events_is_what_clients_get() -> None:
    """The text that events.md shows to clients is that of its entries in Redis, after a snapshot."""
    (example,) = examples(page("events.md"))
    (text,) = re.findall(r"^```text\n(.*?)^```$", page("events.md"), re.MULTILINE | re.DOTALL)
    parser = Parser()
    snapshot, *sent = parser.read([*text.splitlines(), ""])
    (first, _), *entries = json.loads(example)
    assert (snapshot.id, snapshot.event, parser.comments, len(parser.retries)) == (first, "snapshot", 1, 1)
    assert set(snapshot.data) == set(json.loads(examples(page("job-detail.md"))[0]))
    for event, (entry, fields) in zip(sent, entries, strict=True):
        told = JobEvent(entry, fields["job"], fields["kind"], fields["user"], fields["state"], fields)
        assert (event.id, event.event, event.data) == (entry, fields["kind"], event_document(told))


def test_members_of_events_are_told() -> None:
    """The table of events.md has every member that an event may have."""
    clients = page("events.md").partition("**Then each change**")[2].partition("**The end.**")[0]
    fields = dict.fromkeys({*EVERY_EVENT, *(name for names in emitted().values() for name in names)}, "1")
    document = event_document(JobEvent("1-0", "j", "finished", "ada", "failed", fields))
    assert {name for row in rows(clients) for name in ticked(row[0])} == set(document)


def log_calls() -> Iterator[tuple[str, set[str]]]:
    """Every line that our own code logs: its event, and its fields."""
    packages = (
        "core/downloadjobs_core",
        "api/downloadjobs_api",
        "operator/downloadjobs_operator",
        "worker/downloadjobs_worker",
    )
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                if ast.unparse(node.func.value) != "log":
                    continue
                names = {keyword.arg or "" for keyword in node.keywords}
                if node.func.attr == "exception" or "exc_info" in names:
                    names = names - {"exc_info"} | {"exception"}
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value, names


def test_fields_of_logs_are_told() -> None:
    """logs.md has every field that our own lines carry."""
    always, sometimes = section(page("logs.md"), "Fields").split("In some lines:")
    assert {name for row in rows(always) for name in ticked(row[0])} == {
        "timestamp", "level", "logger", "event", *logs.CONTEXT,
    }  # fmt: skip
    told = {name for row in rows(sometimes) for name in ticked(row[0])}
    assert told == set().union(*(names for _, names in log_calls())) - set(logs.CONTEXT)


def test_lines_that_are_worth_knowing_are_logged() -> None:
    """Each line that logs.md explains is one that our code logs."""
    told = {name for row in rows(section(page("logs.md"), "Lines worth knowing")) for name in ticked(row[1])}
    assert told <= {event for event, _ in log_calls()}


def test_the_example_of_logs_is_a_line() -> None:
    """The example of logs.md, logged, gives the same line but for its time."""
    (example,) = examples(page("logs.md"))
    program = """if True:
        import json, sys
        from downloadjobs_core import logs
        line = json.load(sys.stdin)
        del line["timestamp"]
        logs.configure(log_format="json")
        with logs.context(**{name: line.pop(name) for name in logs.CONTEXT}):
            logger = logs.logger(line.pop("logger"))
            getattr(logger, line.pop("level"))(line.pop("event"), **line)
    """
    ran = subprocess.run(
        [sys.executable, "-c", program], input=example, capture_output=True, check=True, text=True
    )
    logged, shown = json.loads(ran.stderr), json.loads(example)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown["timestamp"])
    assert logged | {"timestamp": shown["timestamp"]} == shown


def test_transitions_are_told() -> None:
    """queue.md lists exactly the changes of state that the table in the code allows."""
    told = [(ticked(row[0])[0], ticked(row[1])[0]) for row in rows(section(page("queue.md"), "States"))]
    allowed = [(state.value, to.value) for state, targets in TRANSITIONS.items() for to in targets]
    assert sorted(told) == sorted(allowed)
    diagram = page("queue.md").partition("```")[2].partition("```")[0]
    assert set(re.findall(r"[a-z_]+", diagram)) >= {state.value for state in JobState}


def test_keys_are_told() -> None:
    """queue.md lists every key in Redis by its first word."""
    told = {
        re.split("[:<]", name)[0]
        for row in rows(section(page("queue.md"), "Where a job waits"))
        for name in ticked(row[0])
    }
    scripts = "".join(path.read_text(encoding="utf-8") for path in LUA.rglob("*.lua"))
    python = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "core").rglob("*.py"))
    used = set(re.findall(r"\bkey\('([a-z_]+)", scripts)) | set(re.findall(r"\{ROOT\}:([a-z_]+)", python))
    assert told == used


def test_retries_are_told() -> None:
    """queue.md says which failures of an attempt are tried again, as the worker decides."""
    faults = [
        ObjectStoreUnavailableError(), ObjectChangedError("key"), RuntimeError(), ObjectStoreDeniedError(),
        CredentialsRefusedError(), ResultTooLargeError(1, 1, 1),
        BucketNotFoundError("bucket"), ObjectStoreError("the region is wrong"),
    ]  # fmt: skip
    known = {(failure.code, failure.retryable) for failure in map(failure_of, faults)} | {
        ("no-file-found", False)
    }
    told = {
        (ticked(row[0])[0], row[2].startswith("yes")) for row in rows(section(page("queue.md"), "Retries"))
    }
    assert told == known


def test_maintenance_tasks_are_told() -> None:
    """queue.md lists every task of the queue's own."""
    told = {ticked(row[0])[0] for row in rows(section(page("queue.md"), "Maintenance"))}
    assert told == set(Task)


def test_the_bound_of_memory_is_told() -> None:
    """bundling.md's formula, with the defaults, gives what the page says, and so does its limit of size."""
    text = " ".join(page("bundling.md").split())
    part, threads, files, ahead = (
        cast("int", WorkerSettings.model_fields[name].default)
        for name in ("part_bytes", "upload_threads", "read_ahead_files", "read_ahead_bytes")
    )
    bound = part * (threads + LEAST_BUFFERS) + files * (ahead + CHUNK_BYTES) + CHUNK_BYTES
    assert f"`PART_BYTES` would give more than {PARTS_AIM:,}" in text
    assert f"an upload has {MAX_PARTS:,} parts at most" in text
    assert f"PART_BYTES × (UPLOAD_THREADS + {LEAST_BUFFERS})" in text
    assert f"= {bound // MIB} MiB" in text
    assert f"begins at some {part * PARTS_AIM // 1024**3} GiB" in text
    memory = UPLOAD_MEMORY_BYTES // MIB
    largest = memory // LEAST_BUFFERS * PARTS_AIM // 1024
    most = UPLOAD_MEMORY_BYTES + files * (ahead + CHUNK_BYTES) + CHUNK_BYTES
    assert f"128 MiB, or what `PART_BYTES` × (`UPLOAD_THREADS` + {LEAST_BUFFERS}) is, if that is more" in text
    assert f"{memory} MiB are enough for results up to some {largest} GiB" in text
    assert f"a slot takes {most // MIB} MiB at most" in text


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_lists_exit_codes() -> None:
    """The README lists every exit code of the command line."""
    listed = [int(row[0]) for row in rows(section(README, "The command line")) if row[0].isdecimal()]
    assert listed == sorted(ExitCode)


def test_readme_lists_commands() -> None:
    """The README lists every command, and every command below `dead` and `autoscaler`."""
    listed = [row for row in rows(section(README, "The command line")) if not row[0].isdecimal()]
    assert {name for row in listed for name in ticked(row[0])} == set(cli.commands)
    for name, group in cli.commands.items():
        if isinstance(group, click.Group):
            (told,) = (row for row in listed if ticked(row[0]) == [name])
            assert set(ticked(told[1])) == set(group.commands)


def test_readme_lists_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README lists every path of the API but that of mock storage."""
    monkeypatch.delenv("S3_BUCKET_NAME", raising=False)
    monkeypatch.setenv("MOCK_STORAGE_DIR", str(tmp_path))
    app = create_app(ApiSettings(), Drain())
    served = {re.sub(r"\{\w+\}", "{id}", route.path) for route in falcon.inspect.inspect_routes(app)}
    listed = {
        word
        for row in rows(section(README, "REST"))
        for name in ticked(row[0])
        for word in name.split()
        if word.startswith("/")
    }
    assert listed == served - {"/v1/mock/{id}"}


def test_make_targets_are_there() -> None:
    """Whatever the docs tell to make can be made."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = {
        name
        for path in PAGES
        for name in re.findall(r"(?:^|`|\$ )make ([a-z\d-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert told <= set(re.findall(r"^([a-z\d-]+):", makefile, re.MULTILINE))
