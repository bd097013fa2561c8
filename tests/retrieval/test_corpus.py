"""Corpus: what is read from folders, files and lines, and what is listed as not read."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import DataError, NotFoundError, UsageError
from workbench.retrieval.corpus import Corpus, python_reference, read_corpus
from workbench.retrieval.types import PUBLIC, Document


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """A folder with these files, by their paths in it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def reasons(corpus: Corpus) -> dict[str, str]:
    return {entry.id: entry.reason for entry in corpus.rejected}


def test_a_folder_is_read_with_paths_as_ids(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "docs",
        {"a.md": "# Ants\n\nSmall.\r\n", "sub/deep/b.txt": "\ufeffBees", "z.py": '"""Code.\n\nMore."""\n'},
    )
    corpus = read_corpus(folder)
    assert (corpus.name, [document.id for document in corpus]) == ("docs", ["a.md", "sub/deep/b.txt", "z.py"])
    markdown, text, code = corpus
    assert (markdown.text, markdown.title, markdown.format) == ("# Ants\n\nSmall.\n", "Ants", "markdown")
    assert (text.text, text.title, text.format) == ("Bees", "", "text")
    assert (code.title, code.format, code.access) == ("Code.", "python", PUBLIC)
    assert corpus.get("z.py") is code
    with pytest.raises(NotFoundError, match=r"Did you mean 'z\.py'"):
        corpus.get("y.py")


def test_what_cannot_be_read_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "docs",
        {
            "good.md": "Good.",
            "same.md": "Good.",
            "empty.txt": " \n",
            "latin.txt": "one\ncafé".encode("latin-1"),
            "wide.txt": "wide".encode("utf-16"),
            "binary.txt": b"a\0b",
            "picture.png": b"\x89PNG",
            "large.txt": "x" * 2000,
            "broken.pdf": b"%PDF-1.4 and then nothing",
            "broken.ipynb": "{",
            "old.ipynb": '{"worksheets": []}',
            "blank.html": "<html><body><script>x()</script></body></html>",
            "label.md": "---\naccess: [a\n---\nSecret",
            "labels.md": "---\naccess: 3\n---\nSecret",
            "bomb.md": "---\na: &a [x]\nb: [*a, *a]\n---\nText",
            "table.jsonl": "{}",
        },
    )
    corpus = read_corpus(folder, size_limit=1000)
    assert [document.id for document in corpus] == ["good.md"]
    found = reasons(corpus)
    assert found.pop("broken.pdf").startswith("PDF cannot be read: ")
    assert found.pop("label.md").startswith("front matter is not YAML: ")
    assert found.pop("broken.ipynb").startswith("notebook is not JSON: ")
    assert found == {
        "same.md": "same text as good.md",
        "empty.txt": "empty",
        "latin.txt": "not UTF-8: byte 0xe9 on line 2",
        "wide.txt": "UTF-16, not UTF-8",
        "binary.txt": "binary",
        "picture.png": "not read: .png",
        "large.txt": "0.0 MB, more than 0.0 MB",
        "old.ipynb": "not a notebook of format 4",
        "blank.html": "no text",
        "labels.md": "front matter: access must be text",
        "bomb.md": "front matter with aliases",
        "table.jsonl": "JSON Lines are read by themselves",
    }
    assert all("\n" not in entry.reason for entry in corpus.rejected)
    for shown in (str(corpus), corpus._repr_html_()):
        assert "same text as good.md" in shown
        assert "1 " in shown


def test_hidden_files_and_links_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret", {"key.txt": "key"})
    folder = write(tmp_path / "docs", {"a.txt": "a"})
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "d.txt").write_text("d")
    (folder / ".e.txt").write_text("e")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "f.txt").write_text("f")
    os.symlink(folder, folder / "loop")
    os.symlink(tmp_path / "secret", folder / "outside")
    os.symlink(tmp_path / "secret" / "key.txt", folder / "key.txt")
    os.symlink("nowhere", folder / "gone.txt")
    corpus = read_corpus(folder)
    assert not any(document.text in ("d", "e", "f", "key") for document in corpus)
    assert reasons(corpus) == {
        "gone.txt": "cannot be read: No such file or directory",
        "key.txt": "a link out of the folder",
        "loop": "a link to a folder",
        "outside": "a link to a folder",
    }


def test_include_chooses_files_and_reads_unknown_kinds_as_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"a.md": "A", "sub/b.md": "B", "sub/c.log": "C", "d.txt": "D"})
    assert [document.id for document in read_corpus(folder, include="*.md")] == ["a.md", "sub/b.md"]
    corpus = read_corpus(folder, include=["sub/*", "d.*"])
    assert [document.id for document in corpus] == ["d.txt", "sub/b.md", "sub/c.log"]
    assert corpus.rejected == ()


@pytest.mark.parametrize("include", [None, "*.rst"])
def test_without_a_document_the_error_says_what_was_looked_for(tmp_path: Path, include: str | None) -> None:
    folder = write(tmp_path / "docs", {"a.png": b"\x89"})
    with pytest.raises(DataError, match=r"looked for .*\*\.rst"):
        read_corpus(folder, include=include)
    with pytest.raises(DataError, match="no such file"):
        read_corpus(tmp_path / "none")
    with pytest.raises(DataError, match=r"x\.jsonl:1: not JSON"):
        read_corpus(lines(tmp_path / "x.jsonl", "{"))


def test_front_matter_gives_title_label_and_metadata(tmp_path: Path) -> None:
    text = "---\ntitle: Pay\naccess: hr\ndate: 2026-01-02\nyear: 2026\n---\n# Heading\n\nText\n"
    folder = write(
        tmp_path / "docs", {"pay.md": text, "rule.md": "---\nnot a mapping\n---\n# Rule\n", "open.md": "--- \nText"}
    )
    opened, pay, rule = read_corpus(folder)
    assert (pay.title, pay.access, pay.text) == ("Pay", "hr", "# Heading\n\nText\n")
    assert pay.metadata == {"date": "2026-01-02", "year": 2026}
    assert (rule.title, rule.access, rule.text) == ("Rule", PUBLIC, "---\nnot a mapping\n---\n# Rule\n")
    assert opened.text == "--- \nText"


def test_labels_come_from_the_document_else_from_the_caller(tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"own.md": "---\naccess: own\n---\nA", "hr/b.md": "B", "c.md": "C"})
    named = read_corpus(folder, access=lambda id: "hr" if id.startswith("hr/") else PUBLIC)
    assert {document.id: document.access for document in named} == {"own.md": "own", "hr/b.md": "hr", "c.md": PUBLIC}
    assert {document.access for document in read_corpus(folder, access="staff")} == {"own", "staff"}
    with pytest.raises(UsageError, match="access label"):
        read_corpus(folder, access="")


def test_equal_texts_under_different_labels_are_both_kept(tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", {"a.md": "---\naccess: hr\n---\nSame", "b.md": "Same", "c.md": "Same"})
    corpus = read_corpus(folder)
    assert [(document.id, document.access) for document in corpus] == [("a.md", "hr"), ("b.md", PUBLIC)]
    same = corpus.find("c.md")
    assert same is not None
    assert same.id == "b.md"


def test_html_becomes_markdown(tmp_path: Path) -> None:
    pytest.importorskip("markdownify")
    page = """<!doctype html><html><head><title> The
      page </title><style>p {}</style></head><body><nav><a href="/">Home</a><nav>x</nav></nav><h1>Ants &amp; bees</h1>
      <p>See <a href="https://example.org/long">the <b>site</b></a>.<img src="x.png" alt="pic"></p>
      <ul><li>one_two</li><li>three</li></ul><pre><code>a = 1\n  b = 2</code></pre>
      <table><tr><th>k</th></tr><tr><td>v</td></tr></table><script>alert(1)</script></body></html>"""
    latin = '<meta charset="iso-8859-1"><p>café</p>'.encode("latin-1")
    xhtml = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><h2>Two</h2></body></html>'
    folder = write(
        tmp_path / "docs",
        {"a.html": page, "b.htm": latin, "c.html": xhtml, "d.html": "<p>caf\xe9</p>".encode("latin-1")},
    )
    a, b, c = read_corpus(folder)
    assert (a.title, a.format) == ("The page", "html")
    expected = (
        "# Ants & bees\n\nSee the **site**.\n\n- one_two\n- three\n\n```\na = 1\n  b = 2\n```\n\n| k |\n| --- |\n| v |"
    )
    assert a.text == expected
    assert (b.text, c.text, c.title) == ("café", "## Two", "")


def test_a_page_of_nested_elements_is_rejected_not_fatal(tmp_path: Path) -> None:
    pytest.importorskip("markdownify")
    folder = write(tmp_path / "docs", {"a.html": "<div>" * 20_000 + "deep", "b.txt": "fine"})
    corpus = read_corpus(folder)
    assert [document.id for document in corpus][-1] == "b.txt"
    assert len(corpus) + len(corpus.rejected) == 2


def pdf(*pages: str, password: str = "") -> bytes:
    fpdf = pytest.importorskip("fpdf")
    pytest.importorskip("pypdf")
    made = fpdf.FPDF()
    made.set_title("A title")
    made.set_font("helvetica", size=12)
    for page in pages:
        made.add_page()
        if page:
            made.multi_cell(0, text=page)
    if password:
        made.set_encryption(owner_password="owner", user_password=password)
    return bytes(made.output())


def test_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "docs",
        {"a.pdf": pdf("First page.", "Second page."), "b.pdf": pdf("", ""), "c.pdf": pdf("x", password="p")},
    )
    corpus = read_corpus(folder)
    (document,) = corpus
    assert (document.text, document.title, document.format) == ("First page.\n\f\nSecond page.", "A title", "pdf")
    assert document.metadata == {"pages": 2}
    assert reasons(corpus) == {"b.pdf": "PDF without text; are its pages pictures?", "c.pdf": "PDF with a password"}


def test_a_notebook_gives_its_cells_without_outputs(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
        {"cell_type": "code", "source": "x = '''```'''\n", "outputs": [{"text": "secret output"}]},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "code", "source": []},
    ]
    notebook = {"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4}
    (document,) = read_corpus(write(tmp_path / "docs", {"n.ipynb": json.dumps(notebook)}))
    assert document.text == "# Title\nText\n\n````python\nx = '''```'''\n````"
    assert (document.title, document.format) == ("Title", "notebook")


def test_json_lines_are_documents_and_wrong_ones_are_named(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "docs.jsonl",
        {"id": "b", "text": "Bees", "title": "B", "access": "hr", "metadata": {"year": 2026}, "topic": "insects"},
        "{not json",
        {"id": 7, "text": "Seven", "format": "markdown"},
        "",
        {"text": "no id"},
        {"id": "b", "text": "again"},
        {"id": "c", "text": 5},
        {"id": "d", "text": " "},
        {"id": "e", "text": "Bees", "access": "hr"},
        {"id": "f", "text": "x", "access": ["a"]},
        {"id": "g", "text": "x", "format": ["text"]},
        {"id": "h", "text": "x", "metadata": [1]},
        '{"id": "i", "text": "\\ud800"}',
        '{"id": "j", "text": "x", "metadata": {"score": NaN}}',
        "[1]",
        "[" * 100_000,
    )
    corpus = read_corpus(path)
    assert corpus.name == "docs"
    seven, bees = corpus
    assert (seven.id, seven.format, seven.metadata) == ("7", "markdown", {})
    assert (bees.title, bees.access, bees.metadata) == ("B", "hr", {"topic": "insects", "year": 2026})
    found = reasons(corpus)
    assert found["e"] == "same text as b"
    assert found["docs.jsonl:6"] == "the id 'b' is on line 1 too"
    assert found["docs.jsonl:16"] == "nested too deeply"
    wrong = {"docs.jsonl:" + str(number) for number in (2, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16)}
    assert found.keys() == {"e"} | wrong


def test_a_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    lines(
        folder / "corpus.jsonl",
        {"_id": "2", "title": "T", "text": "two", "metadata": {}},
        {"_id": "1", "title": "Only a title"},
    )
    lines(folder / "queries.jsonl", {"_id": "q", "text": "?"})
    corpus = read_corpus(folder)
    assert (corpus.name, [(document.id, document.title, document.text) for document in corpus]) == (
        "zoo",
        [("1", "Only a title", "Only a title"), ("2", "T", "two")],
    )


def test_one_file_is_a_corpus_of_one(tmp_path: Path) -> None:
    folder = write(tmp_path, {"notes.log": "Some notes."})
    corpus = read_corpus(folder / "notes.log", access="staff")
    assert [(document.id, document.text, document.access) for document in corpus] == [
        ("notes.log", "Some notes.", "staff")
    ]


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True), st.randoms())
def test_the_digest_follows_the_documents_and_not_their_order(ids: list[str], order: random.Random) -> None:
    ids = [id for id in ids if id.isprintable()]
    documents = [Document(id, f"text of {id}") for id in ids]
    corpus = Corpus("one", tuple(documents))
    order.shuffle(documents)
    assert Corpus("two", tuple(documents)).digest == corpus.digest
    grown = corpus.add([Document("new document", "new text")])
    assert grown.digest != corpus.digest
    assert grown.without(["new document"]).digest == corpus.digest
    assert [document.id for document in corpus] == sorted(ids)


def test_add_and_without_give_new_corpora() -> None:
    corpus = Corpus("zoo", (Document("a", "Ants"),))
    grown = corpus.add([Document("c", "Ants"), Document("b", "Bees")])
    assert (len(corpus), [document.id for document in grown], reasons(grown)) == (
        1,
        ["a", "b"],
        {"c": "same text as a"},
    )
    with pytest.raises(UsageError, match="'a' already"):
        corpus.add([Document("a", "Other")])
    with pytest.raises(UsageError, match="two documents 'b'"):
        corpus.add([Document("b", "One"), Document("b", "Two")])
    with pytest.raises(NotFoundError):
        corpus.without(["b"])
    assert corpus.find("b") is None


def test_a_changed_label_changes_the_digest() -> None:
    one = Corpus("zoo", (Document("a", "Ants"),))
    assert Corpus("zoo", (Document("a", "Ants", access="hr"),)).digest != one.digest


def test_the_python_reference_is_read_from_python_itself() -> None:
    corpus = python_reference()
    assert len(corpus) > 70
    assert corpus.characters > 300_000
    assert corpus.get("with").title == 'The "with" statement'
    assert {document.format for document in corpus} == {"text"}
    # A topic whose text another one has too is that other one.
    same = [corpus.find(entry.id) for entry in corpus.rejected]
    assert None not in same
    assert python_reference().digest == corpus.digest
