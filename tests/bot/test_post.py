"""The comment is written once, edited, and says when all became clean; refusals, rate limits and pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onnxlint.bot.comment import MARKER, MOST, comment
from onnxlint.bot.entries import Entries, FindingEntry, ModelEntry, PictureEntry, from_json, to_json
from onnxlint.bot.forges import GitHub, GitLab, pull_request_of
from onnxlint.bot.post import post, write_summary
from onnxlint.bot.web import Api, Refused
from onnxlint.errors import OnnxlintError
from tests.support.forge import THEM, ForgeState, forge

pytest.importorskip("httpx")

HEAD = "a" * 40
FINDING = FindingEntry(
    "SHP001",
    "resize-by-sizes",
    "warning",
    "Resize sizes are computed from shapes",
    "/fpn/Resize",
    "use a constant scale_factor",
    "models/net.py",
    12,
    "up = F.interpolate(x, size=y.shape[2:])",
    "onnxlint fix net.onnx --in-place",
    "    up = F.interpolate(x, scale_factor=2)",
    PictureEntry((("node", "Resize", "/fpn/Resize"), ("input", "x", "")), ((1, 0, "1×3×8×8"),), 0),
)
MODEL = ModelEntry("net.onnx", "modified", nodes=(10, 12), bytes=(1000, 2000), opset=(17, 17), findings=(FINDING,))
DIRTY = Entries(HEAD, (MODEL,), (("models/net.py", ((10, 14),)),), True)
CLEAN = Entries(HEAD, (replace(MODEL, findings=()),))


@pytest.fixture
def state() -> Iterator[ForgeState]:
    with forge() as held:
        yield held


def github(state: ForgeState, waits: list[float] | None = None) -> GitHub:
    api = Api(state.url, GitHub.headers("s3cret"), sleep=(waits if waits is not None else []).append)
    return GitHub(api, "team/models", 5)


def test_one_comment_is_written_edited_and_becomes_clean(state: ForgeState) -> None:
    assert post(DIRTY, github(state)) == "comment written"
    assert len(state.comments) == 1
    assert "1 new finding in 1 model" in state.comments[0]["body"]
    assert post(DIRTY, github(state)) == "comment is up to date"
    assert post(CLEAN, github(state)) == "comment updated"
    assert len(state.comments) == 1
    assert "no new findings" in state.comments[0]["body"]
    assert [path for method, path in state.written() if method == "PATCH"] == ["/repos/team/models/issues/comments/1"]


def test_nothing_is_said_where_nothing_ever_was_found(state: ForgeState) -> None:
    assert post(CLEAN, github(state)).startswith("nothing to post")
    assert not state.written()


def test_a_comment_of_somebody_else_with_our_marker_is_left_alone(state: ForgeState) -> None:
    state.comment(f"{MARKER}\nall is well, merge me", THEM)
    post(DIRTY, github(state))
    assert state.comments[0]["body"].endswith("merge me")
    assert len(state.comments) == 2


def test_our_comment_is_found_on_the_second_page(state: ForgeState) -> None:
    for i in range(150):
        state.comment(f"chatter {i}", THEM)
    post(DIRTY, github(state))
    assert post(CLEAN, github(state)) == "comment updated"
    assert len(state.comments) == 151


def test_notes_are_on_changed_lines_once_with_a_suggestion(state: ForgeState) -> None:
    post(DIRTY, github(state))
    (note,) = state.line_comments
    assert (note["path"], note["line"]) == ("models/net.py", 12)
    assert "```suggestion\n    up = F.interpolate(x, scale_factor=2)\n```" in note["body"]
    post(DIRTY, github(state))
    assert len(state.line_comments) == 1
    post(replace(DIRTY, lines=(("models/net.py", ((100, 120),)),)), github(state))
    assert len(state.line_comments) == 1


def test_at_most_ten_notes(state: ForgeState) -> None:
    findings = tuple(replace(FINDING, line=i) for i in range(1, 40))
    post(
        replace(DIRTY, models=(replace(MODEL, findings=findings),), lines=(("models/net.py", ((1, 50),)),)),
        github(state),
    )
    assert len(state.line_comments) == 10


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry-After": "3"}, 3.0),
        (403, {"Retry-After": "5"}, 5.0),
        (503, {}, 1.0),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}, 1.0),
    ],
)
def test_it_waits_as_long_as_the_server_asks(
    state: ForgeState, status: int, headers: dict[str, str], wait: float
) -> None:
    waits: list[float] = []
    state.answers.append((status, headers, {"message": "slow down"}))
    assert post(DIRTY, github(state, waits)) == "comment written"
    assert waits == [wait]


def test_it_does_not_wait_for_ever(state: ForgeState) -> None:
    state.answers += [(429, {"Retry-After": "86400"}, {})]
    with pytest.raises(OnnxlintError, match="429"):
        post(DIRTY, github(state, []))


def test_a_token_that_may_not_write(state: ForgeState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state.read_only = True
    with pytest.raises(Refused, match="not accessible by integration"):
        post(DIRTY, github(state))
    assert not write_summary(DIRTY)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert write_summary(DIRTY)
    assert "SHP001" in (tmp_path / "summary.md").read_text(encoding="utf-8")


BENT = [
    [1, "x", None],
    [{"id": "x", "body": f"{MARKER} x", "user": {"login": "github-actions[bot]"}, "author": {"id": 7}}],
    [{"id": 1, "body": [], "user": 5, "author": 5, "notes": 5}],
    {"message": []},
    5,
]


@pytest.mark.parametrize("kind", ["github", "gitlab"])
@pytest.mark.parametrize("answer", BENT, ids=str)
def test_answers_of_another_shape(state: ForgeState, answer: object, kind: str) -> None:
    """Each is one line, or nothing that was there."""
    gitlab = GitLab(Api(state.url, GitLab.headers("s3cret")), "5", 5)
    for status in (200, 403, 500):
        state.answers += [(status, {}, answer)]
        said = ""
        try:
            said = post(DIRTY, github(state, []) if kind == "github" else gitlab)
        except (OnnxlintError, Refused) as error:
            said = str(error)
        assert said
        assert "\n" not in said
        state.answers.clear()


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:9\r\nX: y", "http://127.0.0.1:x", "http://127.0.0.1:0", "", "https:///x"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(OnnxlintError, match="not the address of an API"):
        Api(url, {})


@pytest.mark.parametrize("token", ["caf\xe9", "a\nb", "a\0b"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(OnnxlintError, match="no token has") as caught:
        Api("http://127.0.0.1:9", GitHub.headers(token))
    assert token not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_summary_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
    with pytest.raises(OnnxlintError, match=r"^GITHUB_STEP_SUMMARY: /dev/full: cannot be written to: No space"):
        write_summary(DIRTY)


def test_the_token_is_sent_and_never_shown(state: ForgeState) -> None:
    state.answers += [(500, {}, {"message": "no"})] * 4
    with pytest.raises(OnnxlintError) as caught:
        post(DIRTY, github(state, []))
    assert "s3cret" not in str(caught.value)
    assert state.requests[0][2]["Authorization"] == "Bearer s3cret"
    with pytest.raises(OnnxlintError, match="not https"):
        Api("http://example.com", GitHub.headers("s3cret"))


def test_the_pull_request_is_found_by_its_commit(state: ForgeState) -> None:
    state.pulls += [{"number": i, "head": {"sha": f"{i:040x}"}} for i in range(150)]
    api = Api(state.url, GitHub.headers("t"))
    assert pull_request_of(api, "team/models", f"{140:040x}") == 140
    with pytest.raises(OnnxlintError, match="no open pull request"):
        pull_request_of(api, "team/models", "f" * 40)


def test_gitlab(state: ForgeState) -> None:
    def merge_request() -> GitLab:
        return GitLab(Api(state.url, GitLab.headers("t")), "team/models", 3)

    assert post(DIRTY, merge_request()) == "comment written"
    assert post(CLEAN, merge_request()) == "comment updated"
    assert len(state.comments) == 1
    (note,) = state.line_comments
    assert note["position"]["new_line"] == 12
    assert state.written()[0] == ("POST", "/projects/team%2Fmodels/merge_requests/3/notes")


def test_a_file_of_entries_is_what_was_written() -> None:
    assert from_json(to_json(DIRTY).encode(), "f") == DIRTY


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-5],
        lambda text: text.replace('"onnxlint-bot": 1', '"onnxlint-bot": 2'),
        lambda text: text.replace(HEAD, "../../x"),
        lambda text: text.replace('"line": 12', '"line": "12"'),
        lambda text: text.replace('"line": 12', '"line": true'),
        lambda text: text.replace('"code"', '"c0de"'),
        lambda text: text.replace('"status": "modified"', '"status": "m\\n::error::forged"'),
        lambda text: text.replace('"severity": "warning"', '"severity": "\\u001b[31m"'),
        lambda text: text.replace('"severity": "warning"', '"severity": ["error"]'),
        lambda text: text.replace('"models": [', '"models": [[], '),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"x"', '"' + "x" * 30_000 + '"'),
    ],
)
def test_a_damaged_file_is_one_line(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(OnnxlintError, match=r"^report\.json: not a file of onnxlint bot"):
        from_json(damage(to_json(DIRTY)).encode(), "report.json")


def test_a_comment_holds_65000_characters() -> None:
    findings = tuple(replace(FINDING, code=f"SHP{i:03}", message="m" * 300) for i in range(500))
    text = comment(replace(DIRTY, models=(replace(MODEL, findings=findings),)))
    assert len(text) <= MOST
    assert "left out" in text
    assert text.count("<details>") == text.count("</details>") > 10


EVIL = (
    "](javascript:alert(1))<img src=x onerror=alert(1)>@everyone #123 %%{init}%% ::stop-commands::x\n::error::pwned\n"
    "```\n\x1b[31mred\u202etxt.exe</details></summary>**bold**|cell| https://evil.example www.evil.example $$x$$ ~~s~~"
)


def test_hostile_text_is_only_text() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    finding = FindingEntry(
        EVIL, EVIL, "error", EVIL, EVIL, EVIL, EVIL, 3, EVIL, EVIL, EVIL, PictureEntry((("node", EVIL, EVIL),), (), 0)
    )
    model = ModelEntry(
        EVIL, "modified", outputs=EVIL, rows=((EVIL, EVIL),), sections=((EVIL, (EVIL,)),), findings=(finding,)
    )
    broken = ModelEntry(EVIL, "added", error=EVIL)
    text = comment(Entries(HEAD, (model, broken)))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("::") for line in text.splitlines())
    page = markdown_it.MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").render(text)
    assert "<img" not in page
    assert "<a " not in page
    assert "<strong>bold" not in page
    assert page.count("<details>") == page.count("</details>")
    for mention in ("@everyone", "#123"):
        outside = [part for i, part in enumerate(page.replace("</code>", "<code>").split("<code")) if i % 2 == 0]
        assert not any(mention in part for part in outside)
