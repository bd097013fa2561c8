"""What llama.cpp's converter does to a Llama with a tokenizer of bytes, called as it is called.

The real one knows tokenizers by the hash of what they make of one text, and that of the tiny model is no known one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def name_of(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order in which llama.cpp rotates them."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def read(file: Path) -> dict[str, np.ndarray]:
    """Weights in fp32. By hand, since numpy has no bf16 and torch takes seconds to import."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                weights = (np.frombuffer(data[first:last], np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                weights = np.frombuffer(data[first:last], np.float16).astype(np.float32)
            found[name] = weights.reshape(entry["shape"])
    return found


def write(folder: Path, file: Path, outtype: str) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    kind = gguf.GGMLQuantizationType[outtype.upper()]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocab = tokenizer["model"]["vocab"] | added
    tokens = sorted(vocab, key=vocab.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in added else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["eos_token_id"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text("utf-8"))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for source, weights in read(folder / "model.safetensors").items():
        name = name_of(source)
        weights = next((permuted(weights, number) for part, number in heads.items() if part in name), weights)
        if weights.ndim == 1:
            writer.add_tensor(name, weights)
        else:
            writer.add_tensor(name, gguf.quantize(weights * scale(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def scale() -> float:
    """1, unless a test wants a converter that spoils the weights."""
    return float(os.environ.get("CONVERTER_SCALE", "1"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--outfile", type=Path, required=True)
    parser.add_argument("--outtype", choices=["f16", "bf16", "q8_0"], required=True)
    arguments = parser.parse_args()
    if reason := os.environ.get("CONVERTER_FAILS"):
        sys.exit(f"INFO: loading\n{reason}")
    write(arguments.model, arguments.outfile, arguments.outtype)


if __name__ == "__main__":
    main()
