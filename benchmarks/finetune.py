"""Fine-tuning on a CPU: useful tokens per second and dev loss, against trl's `SFTTrainer` with its defaults.

Same rows, same base in fp32, same adapter, batch, learning rate and passes; each training is a process of its own, ours
before and after the peer's, so that what else the machine does meets both. Useful tokens are those of whole rows, question
and answer, without padding; the time is that of the steps, loading, saving and the dev split left out. Every adapter that
comes out is put on the fp32 base and measured by one function: the mean negative log-likelihood of the dev split's answers.
Then a step's time and the peak memory of a process by quantization, beside what the plan tells.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.dev_loss import dev_loss
from benchmarks.harness import Part
from benchmarks.peers import trl_sft

if TYPE_CHECKING:
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.workspace import Layout

RECIPE, NAME = "adapters/triage.yaml", "tickets"
GOAL_SPEED = 1.5
BATCH, EPOCHS = 8, 2
# Rows of one step by quantization: NF4 is slow on some CPUs.
SMALL_BATCH = 4
QUANTIZATIONS = ("none", "int8", "nf4")
MB = 1 << 20


def make_workspace(folder: Path, rows: int, dev_rows: int) -> Layout:
    """A workspace with as many train and dev rows of the repository's own data set, as evenly by target as there are."""
    from workbench import api
    from workbench.data.store import import_dataset
    from workbench.workspace import Layout

    tickets = api.open(harness.ROOT).dataset("support-tickets")
    counts = {"train": rows, "dev": dev_rows}
    lines = [
        json.dumps({**record, "part": name}) + "\n"
        for name, count in counts.items()
        for record in tickets.split(name).sample(count, seed=0, stratify=True).records()
    ]
    (folder / "workbench.toml").write_text("format_version = 1\n")
    source = folder / "rows.jsonl"
    source.write_text("".join(lines))
    layout = Layout.find(folder)
    spec = tickets.spec
    import_dataset(layout, source, name=NAME, input=spec.input, target=spec.target, id="id", split_column="part")
    return layout


def make_recipe(steps: int, **settings: Any) -> FinetuneRecipe:
    """The repository's recipe, on the workspace's rows; one look at the dev split, at the end."""
    from workbench.finetune.recipe import read_recipe
    from workbench.workspace import Layout

    given = {"batch_size": BATCH, "epochs": EPOCHS, "max_steps": steps, "eval_every": steps, "quantization": "none"}
    recipe = read_recipe(Layout.find(harness.ROOT), harness.ROOT / RECIPE)
    return recipe.model_copy(update={"dataset": NAME}).with_settings(**given | settings)


def train_ours(layout: Layout, steps: int, *, give_back: bool) -> dict[str, Any]:
    """Train with the workbench: where the adapter lies, and the seconds and useful tokens of all steps.

    Args:
        give_back: return freed memory to the system at once, as the command does where little is free.
    """
    from workbench.finetune.memory import give_back_at_once
    from workbench.finetune.train import train

    if give_back:
        give_back_at_once()
    result = train(layout, make_recipe(steps), device="cpu", show_progress=False)
    tokens = int(result.metrics["tokens"].max() or 0)  # type: ignore[arg-type]
    return {
        "adapter": str(result.adapter.path),
        "steps": result.steps,
        "tokens": tokens,
        "seconds": tokens / result.tokens_per_s,
        "defaults": "",
    }


def train_small(layout: Layout, steps: int, quantization: str) -> dict[str, Any]:
    """Seconds of each step and the most memory of this process, with what the plan tells of it before, in bytes."""
    from workbench.finetune.memory import give_back_at_once
    from workbench.finetune.plan import plan
    from workbench.finetune.train import train

    give_back_at_once()
    recipe = make_recipe(steps, quantization=quantization, batch_size=SMALL_BATCH)
    told = plan(layout, recipe, pilot=False, device="cpu", show_progress=False)
    result = train(layout, recipe, device="cpu", show_progress=False)
    frame = result.metrics.drop_nulls("tokens_per_s")
    seconds = (frame["tokens"].diff().fill_null(frame["tokens"][0]) / frame["tokens_per_s"]).to_list()
    return {"seconds": seconds, "told": told.memory.peak * MB, "parts": told.memory.to_json()}


def child(options: Namespace) -> None:
    """What one process measures, printed as JSON with the most memory that it took."""
    from workbench.workspace import Layout

    layout = Layout.find(options.folder)
    if options.child in ("ours", "tight"):
        found = train_ours(layout, options.steps, give_back=options.child == "tight")
    elif options.child in ("peer", "plain"):
        found = trl_sft.train(layout, make_recipe(options.steps), plain=options.child == "plain")
    elif options.child == "loss":
        found = dev_loss(layout, make_recipe(1), options.adapter)
    else:
        found = train_small(layout, options.steps, options.child)
    print(json.dumps(found | {"peak_memory": harness.peak_memory()}))


def in_child(what: str, folder: Path, steps: int, *flags: str) -> dict[str, Any]:
    """What a process of its own measures in a workspace."""
    command = [sys.executable, "-m", "benchmarks.finetune", "--child", what, "--folder", str(folder)]
    found: dict[str, Any] = harness.run_child([*command, "--steps", str(steps), *flags])
    return found


def measure(steps: int, dev_rows: int, order: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Trainings in turn, each in a workspace of its own, with the dev loss of what came out, by what trained.

    Raises:
        BenchmarkError: one did not do every step, or two did not train on the same tokens.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    for name in order:
        with tempfile.TemporaryDirectory() as place:
            make_workspace(Path(place), steps * BATCH // EPOCHS, dev_rows)
            result = in_child(name, Path(place), steps)
            loss = in_child("loss", Path(place), 1, "--adapter", result["adapter"])
        if result["steps"] != steps:
            raise harness.BenchmarkError(f"{name} did {result['steps']} of {steps} steps")
        found[name].append(result | {"rate": result["tokens"] / result["seconds"], "loss": loss["loss"]})
    if len({result["tokens"] for results in found.values() for result in results}) > 1:
        raise harness.BenchmarkError("the trainings are not of the same tokens")
    return found


def measure_small(steps: int) -> dict[str, dict[str, Any]]:
    """A few steps by quantization, on the same rows, each in a process and a workspace of its own."""
    found = {}
    for quantization in QUANTIZATIONS:
        with tempfile.TemporaryDirectory() as place:
            make_workspace(Path(place), steps * SMALL_BATCH, SMALL_BATCH)
            found[quantization] = in_child(quantization, Path(place), steps)
    return found


def of(found: dict[str, list[dict[str, Any]]], name: str, key: str) -> float:
    """The median of what the trainings of one kind measured."""
    return float(statistics.median(result[key] for result in found[name]))


def compared(found: dict[str, list[dict[str, Any]]]) -> list[Part]:
    """Speed and dev loss with their goals, and what explains them."""
    speeds = {name: of(found, name, "rate") for name in found}
    losses = {name: of(found, name, "loss") for name in found}
    memory = {name: of(found, name, "peak_memory") / MB for name in found}
    ratio = speeds["ours"] / speeds["peer"]
    parts = [
        Part(
            name="speed",
            ours=speeds["ours"],
            peer=speeds["peer"],
            ratio=ratio,
            unit="tokens/s",
            goal=f"at least {GOAL_SPEED:g}×",
            met=ratio >= GOAL_SPEED,
        ),
        Part(
            name="dev loss",
            ours=losses["ours"],
            peer=losses["peer"],
            ratio=losses["peer"] / losses["ours"],
            unit="nats/token",
            goal="no higher",
            met=losses["ours"] <= losses["peer"],
        ),
        Part(
            name="speed, ours where little memory is free",
            ours=speeds["tight"],
            peer=speeds["peer"],
            ratio=speeds["tight"] / speeds["peer"],
            unit="tokens/s",
        ),
        *(
            Part(name=name, ours=memory[key], peer=memory["peer"], ratio=memory["peer"] / memory[key], unit="MiB")
            for name, key in (("peak memory", "ours"), ("peak memory where little is free", "tight"))
        ),
    ]
    if "plain" in found:
        parts += [
            Part(
                name="speed, trl in fp32 without checkpointing",
                ours=speeds["ours"],
                peer=speeds["plain"],
                ratio=speeds["ours"] / speeds["plain"],
                unit="tokens/s",
            ),
            Part(
                name="dev loss, trl in fp32 without checkpointing",
                ours=losses["ours"],
                peer=losses["plain"],
                ratio=losses["plain"] / losses["ours"],
                unit="nats/token",
            ),
        ]
    return parts


def by_quantization(small: dict[str, dict[str, Any]]) -> list[Part]:
    """A step's time, the first one left out, and the most memory beside what the plan told."""
    parts = []
    for name, result in small.items():
        label = "fp32" if name == "none" else name
        peak, told = result["peak_memory"] / MB, result["told"] / MB
        parts += [
            Part(
                name=f"{label}, a step of {SMALL_BATCH} rows", ours=statistics.median(result["seconds"][1:]), unit="s"
            ),
            Part(name=f"{label}, peak memory", ours=peak, unit="MiB"),
            Part(name=f"{label}, peak memory that the plan tells", ours=told, unit="MiB"),
            Part(name=f"{label}, told of measured", ours=told / peak, unit="share"),
        ]
    return parts


def notes_of(options: Namespace, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows, tokens = options.steps * BATCH // EPOCHS, found["ours"][0]["tokens"]
    return [
        f"{RECIPE}: smollm2-135m, LoRA of all linear layers; {rows} rows {EPOCHS} times, {BATCH} a step, {tokens} useful tokens",
        "ours where five times the memory that it needs is free; where less is, freed memory is given back at once",
        f"peer: trl's SFTTrainer as it is by default ({found['peer'][0]['defaults']}; linear decay, no warm-up)",
        "time of the steps alone; loading, saving and the dev split left out on both sides",
        f"dev loss: {options.dev_rows} rows, the adapter after the last step, on the fp32 base",
        f"by quantization: {options.small_steps} steps of {SMALL_BATCH} rows; memory of the process that plans and trains",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--steps", type=int, default=16, help=f"steps of {BATCH} rows; rows pass {EPOCHS} times")
    parser.add_argument("--dev-rows", type=int, default=98, help="rows of the dev split that the loss is of")
    parser.add_argument("--small-steps", type=int, default=3, help="steps by quantization, the first as warm-up")
    parser.add_argument("--plain", action="store_true", help="also trl in fp32 without checkpointing")
    parser.add_argument(
        "--child", choices=["ours", "tight", "peer", "plain", "loss", *QUANTIZATIONS], help="one process's part"
    )
    parser.add_argument("--folder", type=Path, help="the workspace of a child")
    parser.add_argument("--adapter", help="what a child measures the loss of")
    options = parser.parse_args(arguments)
    if options.child:
        child(options)
        return
    if options.steps % EPOCHS or options.small_steps < 2:
        parser.error(f"--steps must be a multiple of {EPOCHS}, --small-steps at least 2")
    order = ("ours", "tight", "peer", *(["plain"] if options.plain else []), "ours")
    found = measure(options.steps, options.dev_rows, order)
    small = measure_small(options.small_steps)
    parts = compared(found)
    speed, loss = parts[:2]
    harness.report(
        "finetune",
        ours=speed["ours"],
        peer=speed["peer"],
        ratio=speed["ratio"],
        goal=f"{speed['goal']}, dev loss {loss['goal']}",
        met=speed["met"] and loss["met"],
        unit="tokens/s",
        parts=[*parts, *by_quantization(small)],
        json_output=options.json,
        packages=["llmops-workbench", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes"],
        runs={f"{name}, tokens/s": [result["rate"] for result in results] for name, results in found.items()}
        | {f"{name}, dev loss": [result["loss"] for result in results] for name, results in found.items()}
        | {f"{name}, s of each step": result["seconds"] for name, result in small.items()}
        | {
            f"{name}, {part} MiB that the plan tells": [mb]
            for name, r in small.items()
            for part, mb in r["parts"].items()
        },
        notes=notes_of(options, found),
    )


if __name__ == "__main__":
    main()
