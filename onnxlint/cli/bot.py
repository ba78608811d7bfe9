"""`onnxlint bot`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from onnxlint.cli import console
from onnxlint.cli.options import (
    EXIT,
    OUTPUT,
    VERIFICATION,
    WORK,
    ConfigOptions,
    QuietOption,
    RuleOptions,
    UsageError,
    argument,
    number,
    one_of,
    option,
    rule_settings,
)
from onnxlint.errors import OnnxlintError

if TYPE_CHECKING:
    from onnxlint.bot.entries import Entries
    from onnxlint.bot.forges import Forge
    from onnxlint.bot.web import Api

NOTES = (
    "Reads GITHUB_TOKEN (or GITLAB_TOKEN) and the variables that GitHub Actions and GitLab CI set for a pull request. "
    "Exit code: 0 nothing new that fails, 1 new findings, 2 error."
)


@dataclass(frozen=True, kw_only=True)
class Options(ConfigOptions, RuleOptions, QuietOption):
    """Arguments and options of the command."""

    paths: Annotated[list[str] | None, argument("PATH", "folder or model to check (default: the repository)")] = None
    base: Annotated[
        str | None,
        option(
            "--base", metavar="COMMIT", help="compare with this commit (default: the pull request's base)", panel=WORK
        ),
    ] = None
    head: Annotated[str, option("--head", metavar="COMMIT", help="commit to check (default: HEAD)", panel=WORK)] = (
        "HEAD"
    )
    verify: Annotated[
        bool, option("--verify", help="run old and new model and compare the outputs", panel=VERIFICATION)
    ] = False
    dry_run: Annotated[bool, option("--dry-run", help="print the comment without sending it", panel=OUTPUT)] = False
    write: Annotated[
        str | None,
        option("--write", metavar="FILE", help="write the comment to a file, for a job with a token", panel=OUTPUT),
    ] = None
    post: Annotated[
        str | None, option("--post", metavar="FILE", help="send the comment in this file; reads no model", panel=OUTPUT)
    ] = None
    forge: Annotated[
        str | None,
        option(
            "--forge",
            metavar="NAME",
            parser=one_of("github", "gitlab"),
            help="github or gitlab (default: by environment)",
            panel=WORK,
        ),
    ] = None
    number: Annotated[
        int | None,
        option(
            "--number",
            metavar="N",
            parser=number(1),
            help="number of the pull request (default: the event's)",
            panel=WORK,
        ),
    ] = None
    author: Annotated[
        str | None,
        option("--author", metavar="LOGIN", help="account that writes the comments (default: the token's)", panel=WORK),
    ] = None
    fail_on: Annotated[
        str,
        option(
            "--fail-on",
            metavar="LEVEL",
            help="lowest severity of a new finding that fails: error, warning (default), info or never",
            panel=EXIT,
        ),
    ] = "warning"


def run(options: Options) -> int:
    """Comment on a pull request's models; returns the exit code."""
    from onnxlint.bot.entries import to_json
    from onnxlint.bot.post import write_summary
    from onnxlint.model.output import check_writable, write_atomically
    from onnxlint.model.protect import refuse_report

    if options.post is not None and options.write is not None:
        raise UsageError("--write and --post cannot be used together: one job writes the file, another sends it")
    if options.write is not None:
        check_writable(options.write)
        refuse_report(options.write)
    if options.post is not None:
        entries = _read(options.post)
    else:
        forge = None if options.dry_run or options.write is not None else _forge(options, None)
        entries = _collect(options)
        if options.write is not None:
            write_atomically(options.write, to_json(entries))
            write_summary(entries)
            return int(entries.failing)
        if options.dry_run:
            from onnxlint.bot.comment import comment

            console.write(comment(entries))
            return int(entries.failing)
        _post(entries, forge)
        return int(entries.failing)
    _post(entries, _forge(options, entries.head))
    return 0


def _collect(options: Options) -> Entries:
    from onnxlint.bot.changes import Repository
    from onnxlint.bot.collect import Wanted, collect
    from onnxlint.lint.configuration import FAIL_ON, Configs, find
    from onnxlint.lint.finding import Severity

    if options.fail_on not in FAIL_ON:
        raise UsageError(f"--fail-on: {options.fail_on!r} is not a level; choose from {', '.join(FAIL_ON)}")
    wanted = Wanted(
        options.base or _base(),
        options.head,
        tuple(options.paths or ()),
        options.verify,
        None if options.fail_on == "never" else Severity(options.fail_on),
    )
    with console.status(options.quiet):
        repository = Repository()
        path = options.config
        if options.trust_config and path is None:
            path = find(repository.top)
        return collect(
            repository, wanted, Configs(rule_settings(options), path, options.isolated, bool(options.trust_config))
        )


def _read(path: str) -> Entries:
    from onnxlint.bot.entries import MOST_BYTES, from_json
    from onnxlint.model.reading import read_small
    from onnxlint.text import printable

    try:
        return from_json(read_small(path, MOST_BYTES), path)
    except OSError as error:
        raise OnnxlintError(f"{printable(path)}: cannot be read: {error.strerror or error}") from None


def _post(entries: Entries, forge: Forge | None) -> None:
    from onnxlint.bot.post import post, write_summary
    from onnxlint.bot.web import Refused

    assert forge is not None
    try:
        console.notes([post(entries, forge)])
    except Refused as error:
        there = write_summary(entries)
        where = "the report is in the job's summary" if there else "see docs/ci.md for pull requests of forks"
        console.notes([f"this token may not comment ({error}); {where}"])
        return
    write_summary(entries)


# What the job's environment says


def _event() -> dict[str, Any]:
    from onnxlint.model.reading import read_small

    path = os.environ.get("GITHUB_EVENT_PATH")
    if not path:
        return {}
    try:
        document = json.loads(read_small(path, 16 << 20))
    except (OSError, ValueError, RecursionError) as error:
        raise OnnxlintError(f"GITHUB_EVENT_PATH: cannot be read ({type(error).__name__})") from None
    return document if isinstance(document, dict) else {}


def _base() -> str:
    """The commit that the pull request is to be merged into."""
    from onnxlint.bot.web import entry

    base = entry(_event(), "pull_request", "base", "sha") or os.environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA")
    if not base:
        raise UsageError("no base commit: give --base COMMIT (such as origin/main), or run in a pull request's job")
    return str(base)


def _forge(options: Options, head: str | None) -> Forge:
    """GitHub or GitLab, as the environment of the job says."""
    from onnxlint.bot.forges import GitHub, GitLab
    from onnxlint.bot.web import Api

    name = options.forge or ("gitlab" if os.environ.get("GITLAB_CI") else "github")
    if name == "gitlab":
        token = _variable("GITLAB_TOKEN", "a token with the scope 'api'")
        api = Api(_variable("CI_API_V4_URL", "the address of the API"), GitLab.headers(token))
        project = _variable("CI_PROJECT_ID", "the project's number")
        number = options.number or _whole(_variable("CI_MERGE_REQUEST_IID", "the merge request's number, or --number"))
        return GitLab(api, project, number)
    token = _variable("GITHUB_TOKEN", "env: GITHUB_TOKEN: ${{ github.token }}")
    api = Api(os.environ.get("GITHUB_API_URL") or "https://api.github.com", GitHub.headers(token))
    repository = _variable("GITHUB_REPOSITORY", "owner/name")
    number = options.number or _pull_request(_event(), api, repository, head)
    return GitHub(api, repository, number, options.author)


def _pull_request(event: dict[str, Any], api: Api, repository: str, head: str | None) -> int:
    """Number of the pull request that the job runs for."""
    from onnxlint.bot.forges import pull_request_of

    request, run = event.get("pull_request"), event.get("workflow_run")
    if isinstance(request, dict):
        return _whole(str(request.get("number", "")))
    # The commit that GitHub says, not the one in the file: the file comes from the pull request.
    commit = run.get("head_sha") if isinstance(run, dict) else None
    if not commit:
        raise UsageError("no pull request: give --number N, or run in a pull request's job")
    if head is not None and head != commit:
        raise OnnxlintError("the file is of another commit than the job that made it; nothing is posted")
    return pull_request_of(api, repository, str(commit))


def _variable(name: str, meaning: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UsageError(f"{name} is not set: {meaning}; --dry-run prints the comment without it")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
        raise OnnxlintError("the number of the pull request is not a number; give --number N")
    return int(text)
