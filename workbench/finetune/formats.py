"""Names of what an adapter can be made into."""

from __future__ import annotations

from typing import Literal

# Of merged weights.
Dtype = Literal["bf16", "fp16"]
Format = Literal["safetensors", "gguf"]
# Of weights in a GGUF file; `q8_0` has 8 bits and a scale for each 32 of them.
GgufType = Literal["f16", "bf16", "q8_0"]
