"""OpenAI's embeddings on the wire: the body of a request, and what a server's reply means."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.models.openai_wire import Outcome, TokenCounts, read_error, read_reply

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.models.openai_client import Reader
    from workbench.workspace import ServerSettings


def encode_embeddings(model: str, server: ServerSettings, texts: Sequence[str]) -> bytes:
    """The JSON body for one batch. An empty text is sent as a space, for servers refuse an empty one."""
    # Base64 is a third of the numbers' digits; a server that does not know the field answers with numbers.
    body: dict[str, Any] = {"model": model, "input": [text or " " for text in texts], "encoding_format": "base64"}
    kept = {name: value for name, value in body.items() if name not in server.omit}
    return json.dumps(kept, separators=(",", ":")).encode("ascii")


def read_embeddings(texts: int) -> Reader:
    """A reader of replies to a batch of so many texts; `vectors` are float32 (texts, dimensions), of unit length."""

    def read_answer(body: bytes) -> Outcome:
        try:
            data = json.loads(body)
            found = _vectors(data["data"], texts)
            tokens = (data.get("usage") or {}).get("prompt_tokens")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return Outcome("again", error=f"the reply is not {texts} embeddings: {read_error(body)[1]}", may_cost=True)
        if found is None:
            return Outcome("refused", error="an embedding in the reply is no direction (zero, or no number)")
        usage = TokenCounts(tokens, 0) if isinstance(tokens, int) and tokens >= 0 else None
        return Outcome("answered", usage=usage, may_cost=True, vectors=found)

    def read(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        return read_reply(status, headers, body, read_answer=read_answer)

    return read


def _vectors(data: Sequence[Mapping[str, Any]], texts: int) -> NDArray[np.float32] | None:
    """Unit vectors in the order of the texts, whatever that of the reply; None where one has no direction."""
    import numpy as np

    by_index = {int(entry.get("index", place)): entry["embedding"] for place, entry in enumerate(data)}
    rows = [by_index[place] for place in range(texts)]
    if len(data) != texts:
        raise ValueError("more embeddings than texts")
    found = np.stack(
        [np.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else np.asarray(row) for row in rows]
    ).astype(np.float64)
    if found.ndim != 2 or not found.shape[1]:
        raise ValueError("embeddings are lists of numbers")
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    unit: NDArray[np.float32] = (found / lengths).astype(np.float32)
    return unit
