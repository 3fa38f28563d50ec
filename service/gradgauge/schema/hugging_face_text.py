"""BERT, GPT-2, Llama and its kin as specs, from their configurations."""

from gradgauge.schema.hugging_face_config import (
    TOKENS,
    Config,
    Json,
    defaults,
    dropout,
    feed_forward,
    integers,
    language_head,
    normal,
    residual,
)


def bert(given: Config) -> Json:
    """A post-norm encoder, with the pooler of the bare model."""
    head = given.head(
        {
            "BertModel": "",
            "BertForMaskedLM": "words",
            "BertForSequenceClassification": "labels",
            "BertForTokenClassification": "tokens",
        }
    )
    vocabulary, h = given.size("vocab_size", 30522), given.size("hidden_size", 768)
    positions = given.size("max_position_embeddings", 512)
    norm = {"type": "layer_norm", "epsilon": given.number("layer_norm_eps", 1e-12)}
    drop = dropout(given.number("hidden_dropout_prob", 0.1))
    phi = given.activation("hidden_act", "gelu")
    block = [
        residual({"type": "attention", "heads": given.size("num_attention_heads", 12)}, *drop),
        norm,
        residual(*feed_forward(given.size("intermediate_size", 3072), phi, h), *drop),
        norm,
    ]
    pooled: list[Json] = [
        {"type": "select", "index": 0},
        {"type": "dense", "units": h},
        {"type": "activation", "function": "tanh"},
    ]
    heads: dict[str, list[Json]] = {
        "": pooled,
        "words": [
            {"type": "dense", "units": h},
            phi,
            norm,
            language_head(given, vocabulary, bias=True),
        ],
        "labels": [*pooled, *drop, {"type": "dense", "units": given.labels()}],
        "tokens": [*drop, {"type": "dense", "units": given.labels()}],
    }
    return {
        "input": integers(min(TOKENS, positions), vocabulary),
        "defaults": defaults(given.number("initializer_range", 0.02)),
        "layers": [
            {"type": "embedding", "entries": vocabulary, "units": h},
            {"type": "segment_embedding", "segments": given.size("type_vocab_size", 2)},
            {"type": "positional_embedding", "positions": positions},
            norm,
            *drop,
            {"type": "repeat", "times": given.size("num_hidden_layers", 12), "layers": block},
            *heads[head],
        ],
    }


def gpt2(given: Config) -> Json:
    """A pre-norm decoder; the last matrix of each branch is drawn smaller with depth."""
    head = given.head({"GPT2Model": "", "GPT2LMHeadModel": "words"})
    vocabulary, h = given.size("vocab_size", 50257), given.size("n_embd", 768)
    positions, depth = given.size("n_positions", 1024), given.size("n_layer", 12)
    std = given.number("initializer_range", 0.02)
    norm = {"type": "layer_norm", "epsilon": given.number("layer_norm_epsilon", 1e-5)}
    drop = dropout(given.number("resid_pdrop", 0.1))
    # "scale by 1 / sqrt(residual layers)", Radford et al. 2019, section 2.3
    last = {"init": {"weight": normal(std / (2 * depth) ** 0.5)}}
    attention = {
        "type": "attention",
        "heads": given.size("n_head", 12),
        "causal": True,
        "init": {"output": last["init"]["weight"]},
    }
    if not given.flag("scale_attn_weights", default=True):
        attention["scale"] = 1.0
    mlp = feed_forward(
        given.size("n_inner", 4 * h), given.activation("activation_function", "gelu_new"), h
    )
    mlp[-1] = mlp[-1] | last
    block = [residual(norm, attention, *drop), residual(norm, *mlp, *drop)]
    return {
        "input": integers(min(TOKENS, positions), vocabulary),
        "defaults": defaults(std),
        "layers": [
            {"type": "embedding", "entries": vocabulary, "units": h},
            {"type": "positional_embedding", "positions": positions},
            *dropout(given.number("embd_pdrop", 0.1)),
            {"type": "repeat", "times": depth, "layers": block},
            norm,
            *([language_head(given, vocabulary)] if head else []),
        ],
    }


def llama(given: Config, *, biased: bool = False, normed: bool = False) -> Json:
    """Llama and its kin: `biased` queries, keys and values (Qwen2), `normed` ones (Qwen3)."""
    name, vocabulary, inner, few, d = _KIN[str(given.fields["model_type"])]
    head = given.head(
        {
            f"{name}Model": "",
            f"{name}ForCausalLM": "words",
            f"{name}ForSequenceClassification": "labels",
        }
    )
    vocabulary, h = given.size("vocab_size", vocabulary), given.size("hidden_size", 4096)
    norm = {"type": "rms_norm", "epsilon": given.number("rms_norm_eps", 1e-6)}
    heads = given.size("num_attention_heads", 32)
    bias = biased or given.flag("attention_bias", default=False)
    attention = {
        "type": "attention",
        "heads": heads,
        "kv_heads": given.size("num_key_value_heads", few or heads),
        "head_dim": given.size("head_dim", d or h // heads),
        "units": h,
        "causal": True,
        "bias": bias,
        "output_bias": bias and not biased,
        "rotary": _theta(given),
        "qk_norm": normed,
    }
    plain = given.flag("mlp_bias", default=False)
    gate = {"type": "gated", "units": given.size("intermediate_size", inner), "bias": plain}
    phi = given.activation("hidden_act", "silu")
    gate |= {k: v for k, v in phi.items() if k in {"function", "approximate"}}
    mlp = [gate, {"type": "dense", "units": h, "bias": plain}]
    block = [residual(norm, attention), residual(norm, *mlp)]
    tails: dict[str, list[Json]] = {
        "": [],
        "words": [language_head(given, vocabulary, tied=False)],
        "labels": [
            {"type": "select", "index": -1},
            {"type": "dense", "units": given.labels(), "bias": False},
        ],
    }
    return {
        "input": integers(given.tokens("max_position_embeddings", 2048), vocabulary),
        "defaults": defaults(given.number("initializer_range", 0.02)),
        "layers": [
            {"type": "embedding", "entries": vocabulary, "units": h},
            {"type": "repeat", "times": given.size("num_hidden_layers", 32), "layers": block},
            norm,
            *tails[head],
        ],
    }


# family: class name, and the defaults that differ: vocabulary, inner units, kv_heads, head_dim
_KIN: dict[str, tuple[str, int, int, int | None, int | None]] = {
    "llama": ("Llama", 32_000, 11_008, None, None),
    "mistral": ("Mistral", 32_000, 14_336, 8, None),
    "qwen2": ("Qwen2", 151_936, 22_016, 32, None),
    "qwen3": ("Qwen3", 151_936, 22_016, 32, 128),
}


def _theta(given: Config) -> float:
    """The rotary base, where transformers has it (from version 5 on in `rope_parameters`)."""
    nested = given.fields.get("rope_parameters")
    held = Config(nested) if isinstance(nested, dict) else given
    return held.number("rope_theta", 10_000.0)
