"""Encoders of text, with their masked language models' heads."""

from tests.architectures.architecture import SIZE, WORDS, Architecture, pretrained

_IDS = {"input_ids": (2, 6), "attention_mask": (2, 6)}
_SIZE = {
    "vocab_size": WORDS,
    **SIZE,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def _encoder(kind: str, **config) -> Architecture:
    shapes = config.pop("shapes", _IDS)
    return pretrained(kind, "ForMaskedLM", shapes, **{**_SIZE, **config})


ENCODERS = {
    "ALBERT": _encoder("albert", embedding_size=8),
    "BERT": _encoder("bert"),
    "ConvBERT": _encoder("convbert", embedding_size=16),
    "DeBERTa": _encoder("deberta", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "DeBERTa-v2": _encoder(
        "deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=4
    ),
    "DistilBERT": pretrained(
        "distilbert",
        "ForMaskedLM",
        _IDS,
        vocab_size=WORDS,
        dim=16,
        hidden_dim=32,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=16,
    ),
    "ELECTRA": _encoder("electra", embedding_size=8),
    "ERNIE": _encoder("ernie"),
    "ESM": _encoder("esm", position_embedding_type="rotary", mask_token_id=30),
    "FNet": _encoder(
        "fnet", shapes={"input_ids": (2, 6)}, refused={"torchscript": "aten::fft_fftn"}
    ),
    "LayoutLM": _encoder("layoutlm"),
    "MobileBERT": _encoder(
        "mobilebert", true_hidden_size=16, intra_bottleneck_size=16, embedding_size=8
    ),
    "ModernBERT": _encoder(
        "modernbert",
        global_attn_every_n_layers=2,
        local_attention=4,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    ),
    "MPNet": _encoder("mpnet"),
    "RemBERT": _encoder("rembert", input_embedding_size=16, output_embedding_size=16),
    "RoBERTa": _encoder("roberta"),
    "RoFormer": _encoder("roformer", embedding_size=16),
    "SqueezeBERT": _encoder("squeezebert", embedding_size=16),
    "XLM-RoBERTa": _encoder("xlm-roberta"),
    "XLM": pretrained(
        "xlm",
        "",
        _IDS,
        vocab_size=WORDS,
        emb_dim=16,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=16,
    ),
}
