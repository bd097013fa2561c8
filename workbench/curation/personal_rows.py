"""Personal data by row: which cells are searched, what each row holds, and the rows with it masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.curation.balance import is_classes
from workbench.curation.items import Item, mapped, texts_in
from workbench.curation.personal import find_personal, find_until_masked, mask
from workbench.curation.report import Span
from workbench.curation.settings import CurationSettings
from workbench.data.spec import DatasetSpec
from workbench.progress import progress


def searched_columns(spec: DatasetSpec, items: Sequence[Item], most_classes: int) -> list[str]:
    """The columns that are searched for personal data: inputs, and targets that are no classes."""
    targets = [column for column in spec.target if not is_classes([i.record[column] for i in items], most_classes)]
    return [column for column in dict.fromkeys((*spec.input, *targets)) if column != "id"]


def personal_rows(
    items: Sequence[Item], columns: Sequence[str], settings: CurationSettings, *, show_progress: bool = True
) -> tuple[dict[int, tuple[Span, ...]], list[dict[str, Any]] | None]:
    """The personal data in each row that holds some, by its place; and, if the settings say to mask it, every row masked."""
    masking = settings.personal_data == "mask"
    places = [
        (row, column, path, text)
        for row, item in enumerate(items)
        for column in columns
        for path, text in texts_in(item.record[column])
        if text.strip()
    ]
    texts = list(dict.fromkeys(text for *_, text in places))
    with progress(len(texts), "personal data", show=show_progress) as bar:
        found = (find_until_masked if masking else find_personal)(
            texts, entities=settings.entities, min_confidence=settings.min_confidence, progress=bar
        )
    of_text = dict(zip(texts, found, strict=True))
    spans: dict[int, tuple[Span, ...]] = {}
    for row, column, path, text in places:
        for start, end, entity, score in of_text[text]:
            span = Span(column=column + path, entity=entity, start=start, end=end, score=score)
            spans[row] = (*spans.get(row, ()), span)
    if not masking or not spans:
        return spans, None

    def masked(_: str, text: str) -> str:
        return mask(text, of_text.get(text, ()))

    return spans, [item.record | {c: mapped(item.record[c], masked) for c in columns} for item in items]
