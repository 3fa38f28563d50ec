"""Encoders with decoders: text to text, and speech to text."""

import math

from tests.architectures.architecture import WORDS, Architecture, pretrained

_IDS = {"input_ids": (2, 6), "attention_mask": (2, 6), "decoder_input_ids": (2, 5)}
_WORDS = {
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 16,
}
_T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
_SPEECH = {**_BART, "max_target_positions": 16}


def _pair(kind: str, **config) -> Architecture:
    return pretrained(kind, "ForSeq2SeqLM", _IDS, since=14, **_WORDS, **config)


def _speech(kind: str, shape: tuple[int, int, int], **config) -> Architecture:
    shapes = {"input_features": shape, "decoder_input_ids": (2, 5)}
    return pretrained(kind, "ForSpeechSeq2Seq", shapes, **_WORDS, **_SPEECH, **config)


PAIRS = {
    "BART": _pair("bart", **_BART),
    "Blenderbot": _pair("blenderbot", **_BART),
    "LongT5": _pair("longt5", **_T5, scalars=(math.log(8), math.log(16))),
    "M2M-100": _pair("m2m_100", **_BART),
    "Marian": _pair("marian", **_BART),
    "mBART": _pair("mbart", **_BART),
    "mT5": _pair("mt5", **_T5),
    "Pegasus": _pair("pegasus", **_BART),
    "Pegasus-X": _pair(
        "pegasus_x", **_BART, block_size=4, num_global_tokens=2, scalars=(-math.log(10000) / 7,)
    ),
    "Speech2Text": _speech(
        "speech_to_text",
        (2, 16, 4),
        input_feat_per_channel=4,
        conv_channels=8,
        max_source_positions=16,
    ),
    "Switch": _pair(
        "switch_transformers",
        **_T5,
        num_experts=2,
        refused={"dynamo": "Couldn't swap Linear.weight"},
    ),
    "T5": _pair("t5", **_T5),
    "UMT5": _pair("umt5", **_T5),
    "Whisper": _speech(
        "whisper",
        (2, 4, 16),
        num_mel_bins=4,
        max_source_positions=8,
        refused={"torchscript": "aten::diff"},
    ),
}
