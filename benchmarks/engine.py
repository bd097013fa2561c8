"""The local engine: rows per second of few-shot classification, against the `text-generation` pipeline of transformers.

Same process, same model, same messages, greedy. The peer is set up as one who knows it would: batches of 8, left padding,
rows sorted by length. It answers a part of the rows, half of them before and half after ours, so that what else the machine
does meets both; its speed is taken per row. Outputs are compared with `model.generate`, one row at a time.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part

MODEL, DATASET = "smollm2-135m", "support-tickets"
NEW_TOKENS, PEER_BATCH = 8, 8
FEWEST_PREFIX = 400
GOAL_SPEED, GOAL_SAME = 5.0, 0.99
# The few-shot prompt of the repository, and one with fewer and longer examples; both share a little over 400 tokens.
FILE, DRAWN, SHOTS, SEED = "triage-few-shot", "triage", 4, 1

Chat = list[dict[str, str]]


class Peer:
    """transformers' own pipeline, and its plain `generate`, on a model that is loaded already."""

    def __init__(self, model: Any, folder: str) -> None:
        import transformers

        # A tokenizer of its own: padding is a setting of the tokenizer, and ours must not see it.
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = model
        # Warnings about lengths and settings that the calls below name anyway.
        transformers.utils.logging.set_verbosity_error()
        self.pipeline = transformers.pipeline(
            "text-generation", model=model, tokenizer=self.tokenizer, batch_size=PEER_BATCH
        )

    def batched(self, chats: Sequence[Chat]) -> list[str]:
        """Answers of the pipeline, in the order of `chats`."""
        order = sorted(range(len(chats)), key=lambda place: len(chats[place][-1]["content"]))
        found = self.pipeline(
            [chats[place] for place in order],
            batch_size=PEER_BATCH,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            return_full_text=False,
        )
        texts = {place: str(answer[0]["generated_text"]) for place, answer in zip(order, found, strict=True)}
        return [texts[place] for place in range(len(chats))]

    def single(self, chat: Chat) -> str:
        """The greedy answer to one row, without a batch."""
        import torch

        tokens = torch.tensor([self.encode(chat)], device=self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return str(self.tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True))

    def encode(self, chat: Chat) -> list[int]:
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, evenly spaced; all of them where there are fewer."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share."""
    length = min(map(len, rows))
    return next((place for place in range(length) if len({row[place] for row in rows}) > 1), length)


def measure(rows: int, peer_rows: int, same_rows: int) -> dict[str, Any]:
    """Rows per second by prompt, shares of equal outputs, and the length of the shared prefixes.

    Raises:
        BenchmarkError: a prefix is shorter than it must be, or an answer is missing.
    """
    from workbench import api
    from workbench.models.engine import Generation
    from workbench.models.store import find_model
    from workbench.models.transformers_engine import TransformersEngine
    from workbench.pipeline.pipeline import Pipeline

    workspace = api.open(harness.ROOT)
    dataset = workspace.dataset(DATASET)
    engine = TransformersEngine.load(MODEL)
    peer = Peer(engine.model, str(find_model(MODEL).path))
    shots = dataset.split("train").sample(SHOTS, seed=SEED, stratify=True).rows()
    prompts = {"file": workspace.prompt(FILE), "drawn": workspace.prompt(DRAWN).with_examples(shots)}
    pipelines = {
        name: Pipeline(model=MODEL, prompt=prompt, generation=Generation(max_new_tokens=NEW_TOKENS))
        for name, prompt in prompts.items()
    }
    inputs = [dict(row.inputs) for row in dataset.rows()[:rows]]

    def chats(pipeline: Pipeline, chosen: Sequence[dict[str, Any]]) -> list[Chat]:
        return [[{"role": m.role, "content": m.content} for m in pipeline.prompt.render(item)] for item in chosen]

    def ours(pipeline: Pipeline, chosen: Sequence[dict[str, Any]]) -> list[str]:
        found = {index: answer.completion.text for index, answer in pipeline.answers(engine, chosen)}
        texts = [found.get(index) for index in range(len(chosen))]
        if None in texts:
            raise harness.BenchmarkError(f"{texts.count(None)} of {len(chosen)} answers of ours are missing")
        return [str(text) for text in texts]

    prefixes: dict[str, int] = {}
    for name, pipeline in pipelines.items():
        prefixes[name] = common_prefix([peer.encode(chat) for chat in chats(pipeline, inputs)])
        if prefixes[name] < FEWEST_PREFIX:
            raise harness.BenchmarkError(f"the {name} prompt shares {prefixes[name]} tokens, not {FEWEST_PREFIX}")

    # With another prompt, so that no prefix is known before it is timed.
    plain = pipelines["drawn"].with_(prompt=workspace.prompt(DRAWN))
    ours(plain, inputs[:PEER_BATCH])
    peer.batched(chats(plain, inputs[:PEER_BATCH]))

    took: dict[str, list[float]] = {"ours": [], "peer": []}
    texts: dict[str, dict[str, str]] = {}
    peer_texts: dict[str, dict[str, str]] = {}
    theirs = spread(inputs, peer_rows)

    def answer(name: str) -> None:
        texts[name] = {row["text"]: text for row, text in zip(inputs, ours(pipelines[name], inputs), strict=True)}

    def answer_peer(name: str, chosen: Sequence[dict[str, Any]]) -> None:
        found = peer.batched(chats(pipelines[name], chosen))
        peer_texts.setdefault(name, {}).update(zip((row["text"] for row in chosen), found, strict=True))

    for name in pipelines:
        # Every other row, so that both halves have rows of all lengths.
        before = harness.seconds(partial(answer_peer, name, theirs[::2]))
        took["ours"].append(harness.seconds(partial(answer, name)))
        took["peer"].append(before + harness.seconds(partial(answer_peer, name, theirs[1::2])))

    same, peer_same = [], []
    for name, pipeline in pipelines.items():
        # Among the rows that the peer answered, so that both are judged by the same ones as far as there are enough.
        known = [row for row in inputs if row["text"] in peer_texts[name]]
        checked = spread(known if len(known) >= same_rows // len(pipelines) else inputs, same_rows // len(pipelines))
        for row, chat in zip(checked, chats(pipeline, checked), strict=True):
            expected = peer.single(chat)
            same.append(texts[name][row["text"]] == expected)
            if row["text"] in peer_texts[name]:
                peer_same.append(peer_texts[name][row["text"]] == expected)
    return {
        "rates": {
            "ours": [len(inputs) / seconds for seconds in took["ours"]],
            "peer": [len(theirs) / seconds for seconds in took["peer"]],
        },
        "same": statistics.mean(same),
        "compared": len(same),
        "peer_same": statistics.mean(peer_same) if peer_same else None,
        "prefixes": prefixes,
        "info": engine.info,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=300, help="rows of each of the two prompts")
    parser.add_argument("--peer-rows", type=int, default=48, help="rows of each prompt that the peer answers")
    parser.add_argument("--same-rows", type=int, default=60, help="outputs compared with unbatched decoding")
    options = parser.parse_args(arguments)
    peer_rows = min(options.rows, options.peer_rows)
    if peer_rows < 2:
        parser.error("at least 2 rows are needed")
    found = measure(options.rows, peer_rows, options.same_rows)
    rates, info = found["rates"], found["info"]
    # Each ratio is of one prompt, whose measures lie side by side.
    ratio = statistics.median(mine / theirs for mine, theirs in zip(rates["ours"], rates["peer"], strict=True))
    ours, peer = (statistics.median(rates[name]) for name in ("ours", "peer"))
    parts: list[Part] = [
        Part(
            name="speed",
            ours=ours,
            peer=peer,
            ratio=ratio,
            unit="rows/s",
            goal=f"at least {GOAL_SPEED:g}×",
            met=ratio >= GOAL_SPEED,
        ),
        Part(
            name="outputs equal to unbatched greedy",
            ours=found["same"],
            peer=found["peer_same"],
            unit="share",
            goal=f"at least {GOAL_SAME:.0%}",
            met=found["same"] >= GOAL_SAME,
        ),
    ]
    harness.report(
        "engine",
        ours=ours,
        peer=peer,
        ratio=ratio,
        goal="every part",
        met=all(part["met"] for part in parts),
        unit="rows/s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "torch", "transformers", "tokenizers"],
        runs={f"{name}, rows/s": values for name, values in rates.items()},
        notes=[
            f"{MODEL} on {info.device}, {info.dtype}; {NEW_TOKENS} new tokens; prefixes of "
            + " and ".join(f"{count} tokens" for count in found["prefixes"].values()),
            f"ours: {options.rows} rows × {len(found['prefixes'])} prompts",
            f"peer: {peer_rows} of these rows × {len(found['prefixes'])} prompts, its speed taken per row",
            f"{found['compared']} outputs compared with model.generate on one row at a time",
        ],
    )


if __name__ == "__main__":
    main()
