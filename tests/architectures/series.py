"""Sound, time series and trajectories."""

from tests.architectures.architecture import SIZE, WORDS, Architecture, pretrained

_WAVES = {
    **SIZE,
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "conv_dim": [8, 8],
    "conv_stride": [4, 2],
    "conv_kernel": [8, 3],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def _waves(kind: str, **config) -> Architecture:
    return pretrained(kind, "ForCTC", {"input_values": (2, 160)}, **{**_WAVES, **config})


SERIES = {
    "AST": pretrained(
        "audio-spectrogram-transformer",
        "ForAudioClassification",
        {"input_values": (2, 16, 8)},
        **SIZE,
        patch_size=4,
        frequency_stride=4,
        time_stride=4,
        max_length=16,
        num_mel_bins=8,
    ),
    "Data2Vec-Audio": _waves("data2vec-audio", num_conv_pos_embeddings=2, conv_pos_kernel_size=3),
    "Decision Transformer": pretrained(
        "decision_transformer",
        "",
        {
            "states": (2, 4, 3),
            "actions": (2, 4, 2),
            "rewards": (2, 4, 1),
            "returns_to_go": (2, 4, 1),
            "timesteps": (2, 4),
            "attention_mask": (2, 4),
        },
        since=14,
        state_dim=3,
        act_dim=2,
        hidden_size=16,
        n_layer=2,
        n_head=4,
        max_ep_len=16,
        n_positions=32,
    ),
    "HuBERT": _waves("hubert"),
    "PatchTST": pretrained(
        "patchtst",
        "",
        {"past_values": (2, 16, 2)},
        num_input_channels=2,
        context_length=16,
        patch_length=4,
        patch_stride=4,
        d_model=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=32,
        do_mask_input=False,
        refused={"torchscript": "Incompatible dimensions"},
    ),
    "SEW": _waves("sew"),
    "Wav2Vec2": _waves("wav2vec2"),
    "Wav2Vec2-Conformer": _waves("wav2vec2-conformer"),
    "WavLM": _waves("wavlm", num_buckets=8, max_bucket_distance=16),
}
