"""report.html as its parser sees it."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from xray_lightning.evaluation.report.page import write_report

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps rows of tables: each cell its text, small print and sort key."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.tables = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.tables += tag == "table"
        if tag == "tr":
            self.rows.append({"kind": given.get("class"), "table": self.tables, "cells": []})
        if tag in ("td", "th"):
            self.rows[-1]["cells"].append({"text": "", "small": "", "key": given.get("data-key")})
        if tag == "img":
            self.images.append(given)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1]["cells"][-1]["small" if "small" in self.open else "text"] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table(self, number: int) -> Iterator[dict[str, Any]]:
        return (row for row in self.rows if row["table"] == number)


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))
