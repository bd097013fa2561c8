"""The documentation as its tests see it: the blocks of a page, which of them run, and what running them must print.

- `bash` and `python` blocks run, in the order of their page, in one folder; a `cd` in one holds for the next.
- `<!-- not run: why -->` before a block of any kind: its commands are checked against the command line, and not run.
- `<!-- exits with 100 -->` before a bash block: it must.
- A block with `title="path"` is that file; it is written before the next block runs.
- A `text` block right after one that runs is what that one prints: each line in this order, `…` for what differs.
- `console` blocks are sessions (`$ command`), checked as blocks that are not run.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from typer.main import get_command

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"<!-- (?:not run: (?P<why>[^\n]+?)|exits with (?P<code>\d+)) -->\n+$")
_TITLE = re.compile(r'title="([^"]+)"')
_INLINE = re.compile(r"(?<!`)`(workbench [^`\n]+)`(?!`)")
# ${PORT:-8000} counts as 8000.
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")
_SEPARATORS = {"&&", "||", "|", ";", "&", "(", ")", ">", ">>", "<"}
# Says where the block ended, and ends what it left running.
_SETUP = """set -euo pipefail; trap 'pwd > "$WHERE"; kill $(jobs -p) 2>/dev/null || true' EXIT"""
# Seconds; a page that hangs is a failure, not a suite that never ends.
_PATIENCE = 300


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        words: what stands after the language, such as `model` of a Python block that another test runs.
        file: the file that it is; empty where it has no title.
        why_not: why it does not run; empty where nothing says so.
        code: the exit code that it must end with.
        prints: what it must print, from the `text` block right after it.
    """

    page: str
    line: int
    language: str
    words: str
    text: str
    file: str = ""
    why_not: str = ""
    code: int = 0
    prints: str = field(default="", compare=False)

    @property
    def runs(self) -> bool:
        return self.language in ("bash", "python") and not (self.words or self.why_not or self.file)

    @property
    def place(self) -> str:
        return f"docs/{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The blocks of a page of `docs/`, in order."""
    text = (DOCS / page).read_text("utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        language, _, rest = match["head"].partition(" ")
        title, note = _TITLE.search(rest), _NOTE.search(text, end, match.start())
        block = Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=language,
            words=_TITLE.sub("", rest).strip(),
            text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            file=title[1] if title else "",
            why_not=(note["why"] or "") if note else "",
            code=int(note["code"] or 0) if note else 0,
        )
        if language == "text" and found and found[-1].runs and not text[end : match.start()].strip():
            found[-1] = Block(**{**vars(found[-1]), "prints": block.text})
        found.append(block)
        end = match.end()
    return found


def run_page(page: str, folder: Path, monkeypatch: Any) -> None:
    """Run a page in a folder, and fail at the first block that does not do what the page says."""
    here = folder
    for block in blocks(page):
        if block.file:
            (here / block.file).parent.mkdir(parents=True, exist_ok=True)
            (here / block.file).write_text(block.text, "utf-8")
        elif block.runs:
            monkeypatch.chdir(here)
            said, here = _python(block, here) if block.language == "python" else _bash(block, here)
            missing = unsaid(block.prints, said)
            assert missing is None, f"{block.place} does not print {missing!r}, but:\n{said}"


def _python(block: Block, here: Path) -> tuple[str, Path]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.text, block.place, "exec"), {})
    return said.getvalue(), here


def _bash(block: Block, here: Path) -> tuple[str, Path]:
    place = here / ".where"
    script = f"{_SETUP}\n{block.text}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    surroundings = {**os.environ, "PATH": path, "COLUMNS": "120", "NO_COLOR": "1", "WHERE": str(place)}
    surroundings.pop("WORKBENCH_WORKSPACE", None)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=here,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
    )
    assert done.returncode == block.code, f"{block.place} ends with {done.returncode}:\n{done.stdout}"
    now = Path(place.read_text().strip())
    place.unlink()
    return done.stdout, now


def unsaid(wanted: str, said: str) -> str | None:
    """The first line of `wanted` that `said` does not have after the ones before; None where it has them all."""
    lines = iter([_plain(line) for line in said.splitlines()])
    for line in filter(None, map(_plain, wanted.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, re.split(r" ?… ?", line))))
        if not any(pattern.fullmatch(each) for each in lines):
            return line
    return None


def _plain(line: str) -> str:
    # Widths of columns follow what else is in them.
    return re.sub(r"\s+", " ", line).strip()


def commands(text: str) -> Iterator[list[str]]:
    """The `workbench` command lines in a shell text or session, as words without `workbench`."""
    for line in _DEFAULT.sub(r"\1", re.sub(r"\\\n\s*", " ", text)).splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*_read(lexer), ";"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            if words and words[0].rsplit("/")[-1] == "workbench":
                yield words[1:]
            words = []


def _read(lexer: shlex.shlex) -> list[str]:
    try:
        return list(lexer)
    except ValueError:  # what a program printed need not be shell
        return []


def inline_commands(text: str) -> Iterator[list[str]]:
    """The `workbench …` words between single backticks."""
    for match in _INLINE.finditer(_FENCE.sub("", text)):
        yield match[1].split()[1:]


def parse_fault(words: list[str]) -> str | None:
    """Why the command line would refuse these words; None where it takes them. Nothing is run."""
    command, context = _find(words)
    rest = words[len(context) :]
    if hasattr(command, "commands"):
        return None if rest in ([], ["--help"]) else f"no command {' '.join(words)}"
    try:
        command.make_context(" ".join(context), list(rest))
    except click.exceptions.Exit:
        return None
    except Exception as error:
        # Typer brings its own click, whose errors are no relatives of this one's.
        return f"{' '.join(words)}: {error}"
    return None


def naming_fault(words: list[str]) -> str | None:
    """Why prose that names these words is wrong: no such command, or no such option; None where it is right."""
    command, context = _find(words)
    if not context and words and re.fullmatch(r"[a-z]+", words[0]):
        return f"no command {words[0]}"
    if hasattr(command, "commands"):
        return None
    known = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    own = words[: words.index("--")] if "--" in words else words
    unknown = [word.split("=")[0] for word in own if word.startswith("--") and word.split("=")[0] not in known]
    return f"{' '.join(context)} has no {unknown[0]}" if unknown else None


def _find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and those words."""
    command = _program()
    context: list[str] = []
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        context.append(word)
    return command, context


@functools.cache
def _program() -> Any:
    from workbench.cli.main import app

    return get_command(app)
