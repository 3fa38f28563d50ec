"""Images and video: transformers, convolutions, both; pairs of image and text."""

from tests.architectures.architecture import SIZE, WORDS, Architecture, pretrained

_VIT = {
    **SIZE,
    "image_size": 16,
    "patch_size": 8,
}
_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
_PYRAMID = {
    **_STAGES,
    "num_encoder_blocks": 2,
    "strides": [4, 2],
    "num_attention_heads": [2, 4],
    "mlp_ratios": [2, 2],
}
_SEGFORMER = {**_PYRAMID, "sr_ratios": [2, 1], "patch_sizes": [7, 3], "decoder_hidden_size": 16}
_SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 4],
    "window_size": 4,
}
_TEXT = {
    "vocab_size": WORDS,
    **SIZE,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _images(kind: str, side: int, head: str = "ForImageClassification", **config) -> Architecture:
    return pretrained(kind, head, {"pixel_values": (2, 3, side, side)}, **config)


def _video(kind: str, frames: int, **config) -> Architecture:
    shapes = {"pixel_values": (1, frames, 3, 16, 16)}
    size = {key: value for key, value in _VIT.items() if key not in config}
    return pretrained(kind, "ForVideoClassification", shapes, num_frames=frames, **size, **config)


def _both(kind: str, **config) -> Architecture:
    shapes = {"input_ids": (2, 6), "pixel_values": (2, 3, 16, 16)}
    return pretrained(kind, "", shapes, text_config=_TEXT, vision_config=_VIT, since=14, **config)


VISION = {
    "BEiT": _images("beit", 16, **_VIT, use_relative_position_bias=True),
    "BiT": _images("bit", 32, embedding_size=8, hidden_sizes=[32, 32], depths=[1, 1], num_groups=4),
    "Chinese-CLIP": _both("chinese_clip", projection_dim=16),
    "CLIP": _both("clip", projection_dim=16),
    "ConvNeXt": _images("convnext", 32, **_STAGES, num_stages=2),
    "ConvNeXt-V2": _images("convnextv2", 32, **_STAGES, num_stages=2),
    "DeiT": _images("deit", 16, **_VIT, architectures=["DeiTForImageClassification"]),
    "DINOv2": _images("dinov2", 16, **_VIT),
    "EfficientNet": _images(
        "efficientnet",
        32,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=320,
        in_channels=[8, 8],
        out_channels=[8, 16],
        kernel_sizes=[3, 5],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 6],
        image_size=32,
    ),
    "FocalNet": _images(
        "focalnet",
        32,
        image_size=32,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    "GLPN": _images("glpn", 64, "ForDepthEstimation", **_SEGFORMER),
    "Hiera": _images(
        "hiera",
        32,
        image_size=[32, 32],
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 4],
        patch_stride=[4, 4],
        mlp_ratio=2.0,
        query_stride=[2, 2],
        masked_unit_size=[4, 4],
        num_query_pool=1,
    ),
    "LeViT": _images(
        "levit",
        64,
        architectures=["LevitForImageClassification"],
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[4, 4, 4],
    ),
    "MobileNetV1": _images("mobilenet_v1", 32, depth_multiplier=0.25, min_depth=4),
    "MobileNetV2": _images(
        "mobilenet_v2", 32, depth_multiplier=0.25, min_depth=4, depth_divisible_by=4
    ),
    "MobileViT": _images(
        "mobilevit",
        64,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[4, 4, 4, 8, 8, 8, 8],
        num_attention_heads=2,
        image_size=64,
    ),
    "PoolFormer": _images(
        "poolformer",
        32,
        **_STAGES,
        num_encoder_blocks=2,
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
        mlp_ratio=2.0,
    ),
    "PVT": _images(
        "pvt", 32, **_PYRAMID, image_size=32, sequence_reduction_ratios=[2, 1], patch_sizes=[4, 2]
    ),
    "RegNet": _images("regnet", 32, **_STAGES, embedding_size=8, groups_width=4),
    "ResNet": _images("resnet", 32, **_STAGES, embedding_size=8, layer_type="bottleneck"),
    "SegFormer": _images("segformer", 32, "ForSemanticSegmentation", **_SEGFORMER),
    "SigLIP": _both("siglip"),
    "Swin": _images("swin", 32, **_SWIN),
    "Swin-V2": _images("swinv2", 32, **_SWIN),
    "TimeSformer": _video("timesformer", 2),
    "VideoMAE": _video("videomae", 4),
    "ViT": _images("vit", 16, **_VIT),
    "ViViT": _video("vivit", 4, tubelet_size=[2, 8, 8], scalars=(0.7978845608,)),
    "YOLOS": _images(
        "yolos",
        16,
        "ForObjectDetection",
        **{**_VIT, "image_size": [16, 16]},
        num_detection_tokens=3,
    ),
}
