"""The dev loss of an adapter, by one function whoever trained it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.workspace import Layout

# Rows in one pass.
LOOK = 8


def dev_loss(layout: Layout, recipe: FinetuneRecipe, adapter: str) -> dict[str, float]:
    """Mean negative log-likelihood, in nats, of the tokens of the dev split's answers."""
    import peft
    import torch
    from torch.nn.functional import cross_entropy

    from workbench.data.store import open_dataset
    from workbench.finetune.build import load_base
    from workbench.finetune.examples import encode

    base, tokenizer, *_ = load_base(recipe, "cpu")
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    rows = encode(recipe, open_dataset(layout, recipe.dataset).split(recipe.dev), tokenizer).rows
    rows.sort(key=lambda row: len(row.input_ids))
    total, learned = 0.0, 0
    for start in range(0, len(rows), LOOK):
        piece = rows[start : start + LOOK]
        width = max(len(row.input_ids) for row in piece)

        def padded(values: list[list[int]], filler: int, width: int = width) -> torch.Tensor:
            return torch.tensor([value + [filler] * (width - len(value)) for value in values])

        tokens = padded([row.input_ids for row in piece], 0)
        mask = padded([[1] * len(row.input_ids) for row in piece], 0)
        kept = padded([row.completion_mask for row in piece], 0)[:, 1:].bool()
        with torch.inference_mode():
            logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1]
            total += float(cross_entropy(logits[kept].float(), tokens[:, 1:][kept], reduction="sum"))
        learned += int(kept.sum())
    return {"loss": total / learned, "learned": learned}
