"""Hugging Face configurations against transformers itself: as many parameters, the same outputs."""

import json

import onnx_ir
import pytest
import torch
import transformers as hf

from gradgauge.errors import InvalidSpec
from gradgauge.graph.read_spec import read_spec
from gradgauge.schema.spec import SpecLimits, parse_spec
from gradgauge.schema.spec_shapes import count
from tests.specs import run

TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 3, "num_heads": 4}
CONFIGS = {
    "bert": lambda: hf.BertConfig(**TINY),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=3, n_head=4, n_positions=64, **IDS
    ),
    "llama": lambda: hf.LlamaConfig(**TINY, num_key_value_heads=2, **IDS),
    "mistral": lambda: hf.MistralConfig(**TINY, num_key_value_heads=2, **IDS),
    "qwen2": lambda: hf.Qwen2Config(**TINY, num_key_value_heads=2, tie_word_embeddings=True, **IDS),
    "qwen3": lambda: hf.Qwen3Config(**TINY, num_key_value_heads=2, head_dim=6, **IDS),
    "vit": lambda: hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=37,
        image_size=32,
        patch_size=8,
        num_labels=5,
    ),
    "t5": lambda: hf.T5Config(**SMALL_T5),
    "t5-v1.1": lambda: hf.T5Config(
        **SMALL_T5, num_decoder_layers=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
}
HEADS = [
    ("bert", "BertModel"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertForSequenceClassification"),
    ("bert", "BertForTokenClassification"),
    ("gpt2", "GPT2Model"),
    ("gpt2", "GPT2LMHeadModel"),
    ("llama", "LlamaModel"),
    ("llama", "LlamaForCausalLM"),
    ("llama", "LlamaForSequenceClassification"),
    ("mistral", "MistralModel"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2Model"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("vit", "ViTModel"),
    ("vit", "ViTForImageClassification"),
    ("t5", "T5Model"),
    ("t5", "T5EncoderModel"),
    ("t5", "T5ForConditionalGeneration"),
    ("t5-v1.1", "T5ForConditionalGeneration"),
]
# at their default sizes, without weights
DEFAULTS = [
    ("bert", "BertForMaskedLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("vit", "ViTModel"),
    ("t5", "T5ForConditionalGeneration"),
]


def configured(family, name):
    config = CONFIGS[family]()
    config.architectures = [name]
    return config


@pytest.mark.parametrize(("family", "name"), HEADS)
def test_a_model_has_as_many_parameters_as_transformers(family, name):
    config = configured(family, name)
    spec = parse_spec(config.to_json_string(use_diff=False))
    assert count(spec).parameters == getattr(hf, name)(config).num_parameters()
    assert count(parse_spec(config.to_json_string())).parameters == count(spec).parameters


@pytest.mark.parametrize(("family", "name"), DEFAULTS)
def test_a_family_has_transformers_defaults(family, name):
    cls = getattr(hf, name)
    with torch.device("meta"):
        theirs = cls(cls.config_class()).num_parameters()
    spec = parse_spec(json.dumps({"model_type": family, "architectures": [name]}))
    limits = SpecLimits(max_parameters=10**11)
    assert count(spec, limits=limits).parameters == theirs


def linear(ours, theirs):
    return [(f"{ours}.weight", f"{theirs}.weight", True), (f"{ours}.bias", f"{theirs}.bias", False)]


def norm(ours, theirs):
    return [(f"{ours}.scale", f"{theirs}.weight", False), (f"{ours}.bias", f"{theirs}.bias", False)]


def llama_names(model):
    for k in range(3):
        at, there = f"layers.1.{k}.layers", f"model.layers.{k}"
        yield from norm(f"{at}.0.layers.0", f"{there}.input_layernorm")
        yield from norm(f"{at}.1.layers.0", f"{there}.post_attention_layernorm")
        for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
            yield from linear(f"{at}.0.layers.1.{part}", f"{there}.self_attn.{name}_proj")
        for part in ("query", "key"):
            ours = f"{at}.0.layers.1.{part}.norm"
            yield from norm(ours, f"{there}.self_attn.{part[0]}_norm")
        yield from linear(f"{at}.1.layers.1.gate", f"{there}.mlp.gate_proj")
        yield from linear(f"{at}.1.layers.1.value", f"{there}.mlp.up_proj")
        yield from linear(f"{at}.1.layers.2", f"{there}.mlp.down_proj")
    yield ("layers.0.weight", "model.embed_tokens.weight", False)
    yield from norm("layers.2", "model.norm")
    if not model.config.tie_word_embeddings:
        yield ("layers.3.weight", "lm_head.weight", True)


def gpt2_names(model):
    for k in range(3):
        at, there = f"layers.3.{k}.layers", f"transformer.h.{k}"
        yield from norm(f"{at}.0.layers.0", f"{there}.ln_1")
        yield from norm(f"{at}.1.layers.0", f"{there}.ln_2")
        for part in (
            "weight",
            "bias",
        ):  # their Conv1D holds [in, out], queries, keys, values joined
            thirds = model.get_parameter(f"{there}.attn.c_attn.{part}").chunk(3, -1)
            for name, third in zip(("query", "key", "value"), thirds, strict=True):
                yield (f"{at}.0.layers.1.{name}.{part}", third, False)
            yield (f"{at}.0.layers.1.output.{part}", f"{there}.attn.c_proj.{part}", False)
            yield (f"{at}.1.layers.1.{part}", f"{there}.mlp.c_fc.{part}", False)
            yield (f"{at}.1.layers.3.{part}", f"{there}.mlp.c_proj.{part}", False)
    yield ("layers.0.weight", "transformer.wte.weight", False)
    yield ("layers.1.weight", "transformer.wpe.weight", False)
    yield from norm("layers.4", "transformer.ln_f")


def t5_names(_):
    yield ("layers.0.weight", "shared.weight", False)
    for stack, first, last in (("encoder", 2, 3), ("decoder", 7, 8)):
        yield from norm(f"layers.{last}", f"{stack}.final_layer_norm")
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield (f"layers.{first}.0.layers.0.layers.1.relative_bias.weight", table, False)
        for k in range(3):
            at, there = f"layers.{first}.{k}.layers", f"{stack}.block.{k}.layer"
            names = ["SelfAttention", *(["EncDecAttention"] if stack == "decoder" else [])]
            for j, name in enumerate(names):
                yield from norm(f"{at}.{j}.layers.0", f"{there}.{j}.layer_norm")
                for part in ("query", "key", "value", "output"):
                    yield from linear(f"{at}.{j}.layers.1.{part}", f"{there}.{j}.{name}.{part[0]}")
            j = len(names)
            yield from norm(f"{at}.{j}.layers.0", f"{there}.{j}.layer_norm")
            yield from linear(f"{at}.{j}.layers.1", f"{there}.{j}.DenseReluDense.wi")
            yield from linear(f"{at}.{j}.layers.3", f"{there}.{j}.DenseReluDense.wo")


def bert_names(_):
    yield ("layers.0.weight", "bert.embeddings.word_embeddings.weight", False)
    yield ("layers.1.weight", "bert.embeddings.token_type_embeddings.weight", False)
    yield ("layers.2.weight", "bert.embeddings.position_embeddings.weight", False)
    yield from norm("layers.3", "bert.embeddings.LayerNorm")
    for k in range(3):
        at, there = f"layers.5.{k}.layers", f"bert.encoder.layer.{k}"
        for part in ("query", "key", "value"):
            yield from linear(f"{at}.0.layers.0.{part}", f"{there}.attention.self.{part}")
        yield from linear(f"{at}.0.layers.0.output", f"{there}.attention.output.dense")
        yield from norm(f"{at}.1", f"{there}.attention.output.LayerNorm")
        yield from linear(f"{at}.2.layers.0", f"{there}.intermediate.dense")
        yield from linear(f"{at}.2.layers.2", f"{there}.output.dense")
        yield from norm(f"{at}.3", f"{there}.output.LayerNorm")
    yield from linear("layers.6", "cls.predictions.transform.dense")
    yield from norm("layers.8", "cls.predictions.transform.LayerNorm")
    yield ("layers.9.bias", "cls.predictions.bias", False)


def vit_names(_):
    patches = "vit.embeddings.patch_embeddings.projection"
    yield ("layers.0.weight", f"{patches}.weight", False)
    yield ("layers.0.bias", f"{patches}.bias", False)
    yield ("layers.3.weight", "vit.embeddings.cls_token", False)
    yield ("layers.4.weight", "vit.embeddings.position_embeddings", False)
    for k in range(3):
        at, there = f"layers.5.{k}.layers", f"vit.layers.{k}"
        yield from norm(f"{at}.0.layers.0", f"{there}.layernorm_before")
        yield from norm(f"{at}.1.layers.0", f"{there}.layernorm_after")
        for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
            yield from linear(f"{at}.0.layers.1.{part}", f"{there}.attention.{name}_proj")
        yield from linear(f"{at}.1.layers.1", f"{there}.mlp.fc1")
        yield from linear(f"{at}.1.layers.3", f"{there}.mlp.fc2")
    yield from norm("layers.6", "vit.layernorm")
    yield ("layers.8.weight", "classifier.weight", False)
    yield ("layers.8.bias", "classifier.bias", False)


def loaded(graph, model, names):
    """The graph with the model's own weights: every one of them, each used."""
    held = model.state_dict()
    wanted = set(graph.laws) & set(graph.model.graph.initializers)
    wanted = {n for n in wanted if graph.model.graph.initializers[n].shape}
    for ours, theirs, turned in names(model):
        given = held.get(theirs) if isinstance(theirs, str) else theirs
        if ours not in wanted:
            assert given is None, (ours, theirs)
            continue
        wanted.discard(ours)
        value = graph.model.graph.initializers[ours]
        array = (given.T if turned else given).detach().reshape(value.shape.numpy()).numpy()
        value.const_value = onnx_ir.Tensor(array.copy(), name=ours)
    assert not wanted
    return graph


@pytest.mark.parametrize(
    ("family", "name", "names"),
    [
        ("llama", "LlamaForCausalLM", llama_names),
        ("qwen2", "Qwen2ForCausalLM", llama_names),
        ("qwen3", "Qwen3ForCausalLM", llama_names),
        ("gpt2", "GPT2LMHeadModel", gpt2_names),
        ("t5", "T5ForConditionalGeneration", t5_names),
        ("bert", "BertForMaskedLM", bert_names),
        ("vit", "ViTForImageClassification", vit_names),
    ],
)
def test_with_the_models_own_weights_the_outputs_are_transformers(family, name, names):
    config = configured(family, name)
    model = getattr(hf, name)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    graph = loaded(read_spec(config.to_json_string()), model, names)
    shape = [d for d in graph.model.graph.inputs[0].shape if isinstance(d, int)]
    if family == "vit":
        x = torch.randn(2, *shape, generator=generator)
    else:
        x = torch.randint(99, (2, *shape), generator=generator)
    more = {"decoder_input_ids": x} if family == "t5" else {}
    with torch.no_grad():
        wanted = model(x, **more).logits
    ours = torch.from_numpy(run(graph, x.numpy()))
    assert float((ours - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize(
    ("document", "where", "says"),
    [
        ({"model_type": "berd"}, "model_type", "mean 'bert'"),
        ({"model_type": ["bert"]}, "model_type", "no translation"),
        ({"model_type": "bert", "architectures": ["BertForThings"]}, "architectures", "BertFor"),
        ({"model_type": "gpt2", "n_embd": 0}, "n_embd", "whole number from 1 on, not 0"),
        ({"model_type": "gpt2", "n_embd": True}, "n_embd", "not True"),
        ({"model_type": "bert", "hidden_act": "gelv"}, "hidden_act", "mean 'gelu'"),
        ({"model_type": "llama", "attention_bias": 1}, "attention_bias", "true or false"),
        ({"model_type": "bert", "layer_norm_eps": -1}, "layer_norm_eps", "from 0 on"),
        ({"model_type": "t5", "feed_forward_proj": "gated-squish"}, "feed_forward_proj", "squish"),
    ],
)
def test_what_has_no_translation_is_named_by_its_field(document, where, says):
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(json.dumps(document))
    assert caught.value.where == where
    assert says in str(caught.value)
