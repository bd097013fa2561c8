"""Pipeline: the one object that notebook, experiment, artifact and gateway all run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from workbench.errors import PipelineError, PostprocessError, PromptError
from workbench.files import canonical_json, digest_json
from workbench.models.adapters import DIGEST
from workbench.models.budget import Budget
from workbench.models.engine import Completion, Engine, Generation, Request, check_adapter
from workbench.pipeline import steps
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.retrieval import VARIABLE, Passages, Retrieval
from workbench.pipeline.steps import Step
from workbench.workspace import Settings


@dataclass(frozen=True)
class Answer:
    """What a pipeline says to one question.

    Attributes:
        value: the post-processed value; None where there is an error.
        completion: the engine's raw answer, with its tokens and times.
        error_kind: None, `invalid_output` (post-processing rejected the text), or the engine's kind.
        error: the error in words.
        passages: what retrieval found for it; None without retrieval.
    """

    value: Any
    completion: Completion
    error_kind: str | None = None
    error: str | None = None
    passages: Passages | None = None

    def __str__(self) -> str:
        if self.error_kind:
            return f"[{self.error_kind}] {self.error}"
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)


class Pipeline(BaseModel):
    """Model, adapter, prompt, retrieval, generation settings, answer schema and post-processing.

    Two pipelines with the same digest give the same answers on the same machine and model.

    Attributes:
        model: `smollm2-135m`, a folder, or another name that `workbench model ls` lists.
        model_digest: where set, an engine with another digest is refused. Artifacts set it.
        adapter: digest of the adapter that answers with the model, as `AdapterFolder.digest` has it.
        retrieval: the index whose passages the prompt sees as `{{ passages }}`.
        response_schema: JSON Schema of the answer. Generation is constrained to it, and the answer parsed and validated.
        postprocess: steps in order. Empty with a `response_schema` means: parse JSON, validate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))
    format_version: Literal[1] = 1
    model: str
    model_digest: str | None = None
    adapter: str | None = None
    prompt: Prompt
    retrieval: Retrieval | None = None
    generation: Generation = Generation()
    response_schema: dict[str, Any] | None = None
    postprocess: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Pipeline:
        if self.response_schema is not None:
            steps.check_schema(self.response_schema)
        if self.adapter is not None and not DIGEST.fullmatch(self.adapter):
            raise PipelineError(
                f"{self.adapter!r} is not the digest of an adapter",
                hint="A pipeline names its adapter by sha256:… in full; see: workbench finetune ls",
            )
        if self.retrieval is not None and VARIABLE not in self.prompt.variables:
            raise PipelineError(
                "the pipeline retrieves passages, and its prompt does not show them",
                hint="Put {{ passages }} into the prompt.",
            )
        names = [step.name for step in self.postprocess if isinstance(step, steps.Python)]
        if len(names) != len(set(names)):
            raise PipelineError("two post-processing files have the same name", hint="Rename one of them.")
        return self

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON, without the parts that are not set."""
        return digest_json(self.model_dump(mode="json", exclude_none=True))

    def with_(self, **changes: Any) -> Pipeline:
        """A copy with some fields replaced, checked like a new one."""
        unknown = sorted(set(changes) - set(Pipeline.model_fields))
        if unknown:
            raise PipelineError(
                f"a pipeline has no {', '.join(unknown)}", hint=f"It has: {', '.join(Pipeline.model_fields)}."
            )
        fields = {name: getattr(self, name) for name in Pipeline.model_fields} | changes
        return Pipeline(**fields)

    @cached_property
    def effective_steps(self) -> tuple[Step, ...]:
        """The steps that run: `postprocess`, or JSON and its schema where only a schema is given, or a strip."""
        if self.postprocess:
            return self.postprocess
        if self.response_schema is not None:
            return (steps.Json(), steps.Schema(json_schema=self.response_schema))
        return (steps.Strip(),)

    def request(self, inputs: Mapping[str, Any], *, seed_key: str = "") -> Request:
        """What the engine is asked for these inputs.

        Raises:
            PromptError: an input is missing.
        """
        messages = self.prompt.render(inputs)
        return Request(messages, self.generation, self.response_schema, seed_key, self.adapter)

    def finish(self, completion: Completion) -> Answer:
        """Post-process an engine's answer."""
        if completion.text is None:
            return Answer(None, completion, completion.error_kind or "engine", completion.error)
        try:
            return Answer(steps.apply_steps(self.effective_steps, completion.text), completion)
        except PostprocessError as error:
            return Answer(None, completion, "invalid_output", str(error))

    def answers(
        self,
        engine: Engine,
        inputs: Sequence[Mapping[str, Any]],
        *,
        seed_keys: Sequence[str] | None = None,
        budget: Budget | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """Answer many questions, yielding `(index, answer)` as each is done.

        A question whose inputs do not fit the prompt is an answer with `error_kind` `prompt`, not an exception: one bad
        row does not end a run.
        """
        self.check_engine(engine)
        requests: list[Request] = []
        places: list[int] = []
        passages = self._passages(inputs)
        for index, row in enumerate(inputs):
            try:
                found = passages.get(index)
                asked = row if found is None else {**row, VARIABLE: found}
                requests.append(self.request(asked, seed_key=seed_keys[index] if seed_keys else str(index)))
                places.append(index)
            except PromptError as error:
                yield index, self.finish(Completion(text=None, error_kind="prompt", error=str(error)))
        for place, completion in engine.generate(requests, budget=budget):
            index = places[place]
            answer = self.finish(completion)
            yield index, replace(answer, passages=passages[index]) if index in passages else answer

    def _passages(self, inputs: Sequence[Mapping[str, Any]]) -> dict[int, Passages]:
        """What retrieval finds, by row; rows without a query are left out, and fail when they are rendered."""
        if self.retrieval is None:
            return {}
        places = [place for place, row in enumerate(inputs) if self.retrieval.query in row]
        return dict(zip(places, self.retrieval.passages([inputs[place] for place in places]), strict=True))

    def check_engine(self, engine: Engine) -> None:
        """Refuse an engine that is not the model this pipeline was made with, or that cannot use its adapter.

        Raises:
            PipelineError: the digests differ.
            ModelError: the engine takes no adapters, or the adapter was trained on another model.
            NotFoundError: the adapter is not here.
        """
        if self.model_digest and engine.info.digest != self.model_digest:
            raise PipelineError(
                f"the pipeline was made with model {self.model_digest}, but {engine.info.name} is {engine.info.digest}",
                hint=f"Pull the model it was made with: workbench model pull {self.model}",
            )
        if self.adapter is not None:
            check_adapter(engine, self.adapter)

    def engine(self, settings: Settings | None = None) -> Engine:
        """The engine of this pipeline's model; a process loads each model once.

        Args:
            settings: where the servers of `SERVER:MODEL` names are looked up; None takes the current workspace's.

        Raises:
            ModelError: the model is not here, and the hint says what to run; or it is a server's, and there is an adapter.
        """
        from workbench.models.engines import get_engine

        return get_engine(self.model, self.generation.quantization, settings, adapter=self.adapter)

    def answer(self, inputs: Mapping[str, Any]) -> Answer:
        """Answer one question, with tokens, times and the raw text.

        Raises:
            PromptError: an input is missing.
            ModelError: the model is not here.
        """
        self.prompt.render(inputs if self.retrieval is None else {**inputs, VARIABLE: ""})
        return next(answer for _, answer in self.answers(self.engine(), [inputs]))

    def __call__(self, **inputs: Any) -> Any:
        """The post-processed answer to one question.

        Raises:
            PromptError: an input is missing.
            PipelineError: the model's answer does not pass post-processing.
        """
        answer = self.answer(inputs)
        if answer.error_kind:
            raise PipelineError(f"no valid answer: {answer.error}", hint="See Pipeline.answer(...) for the raw text.")
        return answer.value

    def split(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The pipeline as a skeleton and its parts (`prompt.json`, `postprocess/NAME.py`), for storage by digest."""
        skeleton = self.model_dump(mode="json", exclude_none=True)
        parts = {"prompt.json": canonical_json(skeleton["prompt"])}
        skeleton["prompt"] = {"digest": self.prompt.digest}
        for dumped in skeleton["postprocess"]:
            if dumped["kind"] == "python":
                parts[f"postprocess/{dumped['name']}.py"] = dumped.pop("source").encode()
        return skeleton, parts

    @classmethod
    def join(cls, skeleton: Mapping[str, Any], parts: Mapping[str, bytes]) -> Pipeline:
        """Put back together what `split` took apart.

        Raises:
            PipelineError: a part is missing, or its digest is not the one the skeleton names.
        """
        data = json.loads(json.dumps(dict(skeleton)))
        try:
            prompt = json.loads(parts["prompt.json"])
            if digest_json(prompt) != data["prompt"]["digest"]:
                raise PipelineError("prompt.json is not the prompt this pipeline names", hint="Verify the artifact.")
            data["prompt"] = prompt
            for step in data.get("postprocess", ()):
                if step["kind"] == "python":
                    step["source"] = parts[f"postprocess/{step['name']}.py"].decode()
            return cls.model_validate(data)
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
            raise PipelineError(f"the stored pipeline is malformed: {error}", hint="Verify the artifact.") from None

    def __repr__(self) -> str:
        return (
            f"Pipeline(model={self.model!r}, prompt={self.prompt.digest[7:19]}, examples={len(self.prompt.examples)}, "
            f"digest={self.digest[7:19]})"
        )

    __str__ = __repr__
