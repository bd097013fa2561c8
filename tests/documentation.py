"""The documentation as its tests see it: the blocks of a page, and what the command line says to their commands.

- `bash` and `python` blocks run, in the order of their page, in one folder; a `cd` in one holds for the next. How:
  `tests/documentation_run.py`. What a page finds in its folder: `tests/documentation_given.py`.
- A block with `title="path"` is that file; it is written before the next block runs.
- A `text` block right after one that runs is what that one prints: each line in this order, `…` for what differs.
- `console` blocks are sessions (`$ command`), checked as blocks that are not run.

A note before a bash block says more of it:

- `<!-- exits with 100 -->`: it must.
- `<!-- stays open -->`: it serves until it is stopped, and so it does while the blocks after it run. What it prints first
  must be an address that answers. The next block that stays open ends it.
- `<!-- on another machine -->`: it runs in another workspace, a new one, which sees the same registry.
- `<!-- run in guides/ci.md -->`: each of its commands runs on that page.
- `<!-- not run: why -->`: its commands are only held against the command line. `tests/test_docs.py` lists all there are.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from typer.main import get_command

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

_FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(
    r"<!-- (?:not run: (?P<why>[^\n]+?)|exits with (?P<code>\d+)|run in (?P<other>\S+)"
    r"|(?P<open>stays open)|(?P<elsewhere>on another machine)) -->\n+$"
)
_TITLE = re.compile(r'title="([^"]+)"')
_INLINE = re.compile(r"(?<!`)`(workbench [^`\n]+)`(?!`)")
_SEPARATORS = {"&&", "||", "|", ";", "&", "(", ")", ">", ">>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        words: what stands after the language, such as `model` of a Python block that another test runs.
        file: the file that it is; empty where it has no title.
        why_not: why it does not run; empty where nothing says so.
        other: the page that runs its commands in its place; empty where it runs itself.
        code: the exit code that it must end with.
        stays_open: whether it serves until it is stopped.
        elsewhere: whether it runs on another machine.
        prints: what it must print, from the `text` block right after it.
    """

    page: str
    line: int
    language: str
    words: str
    text: str
    file: str = ""
    why_not: str = ""
    other: str = ""
    code: int = 0
    stays_open: bool = False
    elsewhere: bool = False
    prints: str = field(default="", compare=False)

    @property
    def runs(self) -> bool:
        return self.language in ("bash", "python") and not (self.words or self.why_not or self.other or self.file)

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
        )
        if note:
            block = replace(
                block,
                why_not=note["why"] or "",
                other=note["other"] or "",
                code=int(note["code"] or 0),
                stays_open=bool(note["open"]),
                elsewhere=bool(note["elsewhere"]),
            )
        if language == "text" and found and found[-1].runs and not text[end : match.start()].strip():
            found[-1] = replace(found[-1], prints=block.text)
        found.append(block)
        end = match.end()
    return found


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
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
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
