"""`demo`: one download job, from its files to its verified zip, on real servers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from downloadjobs_cli.client import ApiClient, Login
from downloadjobs_cli.display import describe, display_for
from downloadjobs_cli.errors import CliError, InterruptedByUserError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.fetching import Fetcher
from downloadjobs_cli.getting import verified_line
from downloadjobs_cli.interrupts import Interrupts
from downloadjobs_cli.meter import Meter
from downloadjobs_cli.output import Output, amount, counted, duration
from downloadjobs_cli.partial_file import PartialFile
from downloadjobs_cli.patience import Patience
from downloadjobs_cli.sample_files import SampleFile, sample_files
from downloadjobs_cli.seed_command import seeded_line
from downloadjobs_cli.seeding import seed
from downloadjobs_cli.stack import Stack, without_addresses
from downloadjobs_cli.stack_folder import StackFolder
from downloadjobs_cli.steps import Steps
from downloadjobs_cli.verifying import Report, verify
from downloadjobs_cli.watching import Watcher
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.settings import StorageSettings

WORKERS: Final = 2
USER: Final = "demo"
FIRST_ID: Final = 10_000
SIZE_MIN: Final = 64_000
SIZE_MAX: Final = 4_000_000
"""Bytes; 40 files of such sizes are some 40 MB: enough to see progress, soon done."""

PATIENCE_SECONDS: Final = 20.0
JOB_SECONDS: Final = 120.0
"""A job of this size takes a second or two; beyond, something is wrong."""

KEY_PREFIX: Final = "downloads/"
SETTINGS: Final = {"AUTH_MODE": "header", "DOWNLOAD_DELAY_ENABLED": "false"}
"""The demo is the same for everybody, whatever the user's environment asks for."""
