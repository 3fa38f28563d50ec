"""Decoders of text: attention with learned, rotary or linear positions, state spaces."""

from tests.architectures.architecture import SIZE, WORDS, Architecture, pretrained

_UNPADDED = {"input_ids": (2, 6)}
_IDS = {**_UNPADDED, "attention_mask": (2, 6)}  # without a mask they look for packed sequences
_WORDS = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16}
_LLAMA = {
    **SIZE,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
_HEADS = {"head_dim": 4}


def _decoder(kind: str, **config) -> Architecture:
    shapes = config.pop("shapes", _IDS)
    config.setdefault("since", 14)  # aten::tril and friends
    return pretrained(kind, "ForCausalLM", shapes, **{**_WORDS, **config})


def _llama(kind: str, **config) -> Architecture:
    return _decoder(kind, **{**_LLAMA, **config})


DECODERS = {
    "BioGPT": _llama("biogpt"),
    "Bloom": _decoder("bloom", hidden_size=16, n_layer=2, n_head=4, scalars=(0.79788456,)),
    "CodeGen": _decoder("codegen", **_GPT, rotary_dim=4),
    "Cohere": _llama("cohere", refused={"torchscript": "shape_type_inference"}),
    "CTRL": _decoder("ctrl", **_GPT, dff=32),
    "Falcon": _decoder("falcon", hidden_size=16, num_hidden_layers=2, num_attention_heads=4),
    "Falcon-Mamba": _llama("falcon_mamba", state_size=4),
    "Gemma": _llama("gemma", **_HEADS),
    "Gemma-2": _llama("gemma2", **_HEADS, sliding_window=4),
    "Gemma-3": _llama("gemma3_text", **_HEADS, sliding_window=4),
    "GLM": _llama("glm", **_HEADS, refused={"torchscript": "All tensors must have the same rank"}),
    "GPT-1": _decoder("openai-gpt", **_GPT),
    "GPT-2": _decoder("gpt2", **_GPT),
    "GPT-BigCode": _decoder("gpt_bigcode", **_GPT),
    "GPT-J": _decoder("gptj", **_GPT, rotary_dim=4),
    "GPT-Neo": _decoder(
        "gpt_neo",
        hidden_size=16,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=16,
        window_size=4,
    ),
    "GPT-NeoX": _llama("gpt_neox"),
    "Granite": _llama("granite"),
    "Jamba": _llama("jamba", num_experts=2, mamba_d_state=4, use_mamba_kernels=False),
    "Llama": _llama("llama"),
    "Mamba": _llama("mamba", state_size=4),
    "Mamba-2": _decoder(
        "mamba2",
        hidden_size=16,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=8,
        n_groups=2,
        state_size=4,
        chunk_size=4,
        refused={"torchscript": "Invalid attribute perm"},
    ),
    "Mistral": _llama("mistral", **_HEADS, sliding_window=4),
    "Mixtral": _llama("mixtral", **_HEADS, num_local_experts=2),
    "MPT": _decoder("mpt", d_model=16, n_layers=2, n_heads=4, max_seq_len=16),
    "Nemotron": _llama("nemotron", **_HEADS),
    "OLMo": _llama("olmo"),
    "OLMo-2": _llama("olmo2"),
    "OPT": _llama("opt", ffn_dim=32, word_embed_proj_dim=16),
    "Persimmon": _llama("persimmon"),
    "Phi": _llama("phi"),
    "Phi-3": _llama("phi3"),
    "Qwen2": _llama("qwen2"),
    "Qwen2-MoE": _llama("qwen2_moe", num_experts=2, num_experts_per_tok=1),
    "Qwen3": _llama("qwen3", **_HEADS),
    "RecurrentGemma": _llama("recurrent_gemma", shapes=_UNPADDED, lru_width=16),
    "RWKV": _decoder(
        "rwkv",
        shapes=_UNPADDED,
        hidden_size=16,
        num_hidden_layers=2,
        attention_hidden_size=16,
        intermediate_size=32,
        context_length=16,
    ),
    "StableLM": _llama("stablelm"),
    "StarCoder2": _llama("starcoder2"),
    "XLNet": _decoder(
        "xlnet", d_model=16, n_layer=2, n_head=4, d_inner=32, refused={"dynamo": "aten.sub"}
    ),
}
