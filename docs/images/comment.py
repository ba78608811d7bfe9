"""The picture of a comment in docs/ci.md: `python docs/images/comment.py` writes comment.png beside this file.

A branch replaces the hand-fixed RetinaFace by the original export; the comment is what `onnxlint bot --dry-run` prints,
rendered by markdown-it and photographed by headless Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).parents[2]))

from fixtures.retinaface import build

STYLE = """
body { font: 16px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; color: #1f2328; margin: 0;
  padding: 24px; background: #fff; }
main { border: 1px solid #d1d9e0; border-radius: 6px; padding: 16px; }
table { border-collapse: collapse; margin: 16px 0; } td, th { border: 1px solid #d1d9e0; padding: 6px 13px; }
code { background: #818b981f; padding: .2em .4em; border-radius: 6px; font: 85% ui-monospace, monospace; }
pre { background: #f6f8fa; padding: 16px; border-radius: 6px; overflow: hidden; } pre code { background: none; }
details { margin: 0 0 8px; } h3 { margin-top: 0; }
"""


def main() -> None:
    """Make the repository, the comment and the picture."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "team")
        folder.mkdir()
        made = Path(scratch, "made")
        build(made, size=64, only=["dynamo_dyn"], width=32)

        def git(*words: str) -> None:
            identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
            subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

        git("init", "-q", "-b", "main")
        for form, branch in (("fixed", "main"), ("original", "export")):
            if branch != "main":
                git("checkout", "-q", "-b", branch)
            folder.joinpath("face.onnx").write_bytes((made / f"{form}_dynamo_dyn.onnx").read_bytes())
            git("add", "-A")
            git("commit", "-q", "-m", form)
        command = [sys.executable, "-m", "onnxlint", "bot", "--dry-run", "--base", "main", "--isolated"]
        text = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
        text = text.replace("<details>", "<details open>", 1)
        # Mermaid is GitHub's to draw: here its pictures are left out.
        body = MarkdownIt("commonmark", {"html": True}).enable("table").render(_without_pictures(text))
        page = Path(scratch, "page.html")
        page.write_text(f"<meta charset=utf-8><style>{STYLE}</style><main>{body}</main>", encoding="utf-8")
        picture = Path(__file__).with_name("comment.png")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,900"]
        data = f"--user-data-dir={scratch}/chromium"
        subprocess.run(
            ["chromium", *flags, data, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True
        )


def _without_pictures(text: str) -> str:
    out, skipping = [], False
    for line in text.splitlines():
        skipping = skipping or line == "```mermaid"
        if not skipping:
            out.append(line)
        skipping = skipping and line != "```"
    return "\n".join(out)


if __name__ == "__main__":
    main()
