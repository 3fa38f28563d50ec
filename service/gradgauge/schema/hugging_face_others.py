"""ViT and T5 as specs, from their configurations."""

from typing import Any

from gradgauge.schema.hugging_face_config import (
    ACTIVATIONS,
    TOKENS,
    Config,
    Json,
    defaults,
    dropout,
    feed_forward,
    integers,
    language_head,
    normal,
    refused,
    residual,
)


def vit(given: Config) -> Json:
    """An image cut into patches, a class token before them, a pre-norm encoder."""
    head = given.head({"ViTModel": "", "ViTForImageClassification": "labels"})
    h, patch = given.size("hidden_size", 768), given.size("patch_size", 16)
    side, channels = given.size("image_size", 224), given.size("num_channels", 3)
    norm = {"type": "layer_norm", "epsilon": given.number("layer_norm_eps", 1e-12)}
    drop = dropout(given.number("hidden_dropout_prob", 0.0))
    phi = given.activation("hidden_act", "gelu")
    attention = {
        "type": "attention",
        "heads": given.size("num_attention_heads", 12),
        "bias": given.flag("qkv_bias", default=True),
        "output_bias": True,
    }
    mlp = feed_forward(given.size("intermediate_size", 3072), phi, h)
    first = {"type": "select", "index": 0}
    pooler = [
        {"type": "dense", "units": given.size("pooler_output_size", h)},
        {"type": "activation", "function": given.text("pooler_act") or "tanh"},
    ]
    last = [{"type": "dense", "units": given.labels()}] if head else pooler
    return {
        "input": {"shape": [channels, side, side], "distribution": "normal"},
        "defaults": defaults(given.number("initializer_range", 0.02)),
        "layers": [
            {"type": "conv2d", "filters": h, "kernel": patch, "stride": patch},
            {"type": "reshape", "shape": [h, -1]},
            {"type": "permute", "axes": [1, 0]},
            {"type": "class_token"},
            {"type": "positional_embedding"},
            *drop,
            {
                "type": "repeat",
                "times": given.size("num_hidden_layers", 12),
                "layers": [residual(norm, attention, *drop), residual(norm, *mlp, *drop)],
            },
            norm,
            first,
            *last,
        ],
    }


def t5(given: Config) -> Json:
    """An encoder, and a decoder that reads the same tokens and the encoder's last values."""
    head = given.head(
        {"T5Model": "", "T5ForConditionalGeneration": "words", "T5EncoderModel": "encoder"}
    )
    vocabulary, h = given.size("vocab_size", 32128), given.size("d_model", 512)
    depth = given.size("num_layers", 6)
    factor = given.number("initializer_factor", 1.0)
    norm = {"type": "rms_norm", "epsilon": given.number("layer_norm_epsilon", 1e-6)}
    drop = dropout(given.number("dropout_rate", 0.1))
    stacks = _T5(given, h, factor)
    encoder = [
        residual(norm, stacks.attention("encoder"), *drop),
        residual(norm, *stacks.mlp(), *drop),
    ]
    decoder = [
        residual(norm, stacks.attention("decoder", causal=True), *drop),
        residual(norm, stacks.attention(None, memory="encoder"), *drop),
        residual(norm, *stacks.mlp(), *drop),
    ]
    down = [
        {"type": "remember", "name": "encoder"},
        {"type": "recall", "name": "tokens"},
        {"type": "repeat", "times": given.size("num_decoder_layers", depth), "layers": decoder},
        norm,
        *drop,
    ]
    logits = language_head(given, vocabulary)
    if logits["type"] == "unembedding":
        logits["scale"] = h**-0.5  # as Mesh TensorFlow scales tied logits
    return {
        "input": integers(TOKENS, vocabulary),
        "defaults": defaults(factor),
        "layers": [
            {"type": "embedding", "entries": vocabulary, "units": h},
            {"type": "remember", "name": "tokens"},
            {"type": "repeat", "times": depth, "layers": encoder},
            norm,
            *drop,
            *([] if head == "encoder" else down),
            *([logits] if head == "words" else []),
        ],
    }


class _T5:
    """T5's layers, without biases and drawn so that logits need no scale."""

    def __init__(self, given: Config, features: int, factor: float) -> None:
        self.given, self.h, self.factor = given, features, factor
        self.heads, self.d = given.size("num_heads", 8), given.size("d_kv", 64)

    def attention(self, bias: str | None, **more: Any) -> Json:
        wide = self.heads * self.d
        init = {
            "query": normal(self.factor * (self.h * self.d) ** -0.5),
            "key": normal(self.factor * self.h**-0.5),
            "value": normal(self.factor * self.h**-0.5),
            "output": normal(self.factor * wide**-0.5),
        }
        layer = {
            "type": "attention",
            "heads": self.heads,
            "head_dim": self.d,
            "bias": False,
            "scale": 1.0,
            "init": init,
        }
        if bias is not None:
            layer["relative_bias"] = {
                "name": bias,
                "buckets": self.given.size("relative_attention_num_buckets", 32),
                "max_distance": self.given.size("relative_attention_max_distance", 128),
                "init": {"weight": normal(self.factor * self.h**-0.5)},
            }
        return layer | more

    def mlp(self) -> list[Json]:
        words = (self.given.text("feed_forward_proj") or "relu").split("-")
        inner = self.given.size("d_ff", 2048)
        up = {
            "units": inner,
            "bias": False,
            "init": {"weight": normal(self.factor * self.h**-0.5)},
        }
        out = {"weight": normal(self.factor * inner**-0.5)}
        down = {"type": "dense", "units": self.h, "bias": False, "init": out}
        # transformers reads gated-gelu as the approximate one
        name = "gelu_new" if words == ["gated", "gelu"] else words[-1]
        if name not in ACTIVATIONS:
            raise refused("feed_forward_proj", f"no translation of {name[:60]!r}")
        phi = ACTIVATIONS[name]
        if words[0] == "gated":
            return [{"type": "gated"} | up | phi, down]
        return [{"type": "dense"} | up, {"type": "activation"} | phi, down]
