"""Cases of ops/resize.py and ops/sampling.py."""

import numpy as np

from tests.ops.case import Case, ints, normal, uniform

_IMAGE = normal(1, 2, 4, 5)
_MODES = ("nearest", "linear", "cubic")
_WAYS = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
_UP, _DOWN = uniform(1, 1, 4), uniform(1, 1, 4)
_UP[2:], _DOWN[2:] = (1.7, 2.0), (0.6, 0.7)
_REGION = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.2], np.float32)
_ROIS = np.array([[0.4, 0.3, 3.1, 2.2], [0.5, 1.2, 2.6, 3.4]], np.float32)
_THETA = np.array([[[0.9, 0.2, 0.1], [-0.3, 1.1, 0.05]]], np.float32)


def _resize(sizes=None, scales=None, roi=None, skip=(2,), **options):
    inputs = (_IMAGE, roi, scales) if sizes is None else (_IMAGE, roi, None, sizes)
    return Case("Resize", 19, inputs, options, skip=(1, *skip))


def _unfolded(columns: np.ndarray, *_: np.ndarray) -> list[np.ndarray]:
    """Col2Im by its definition: each window's column is added where it came from."""
    image = np.zeros((1, 2, 4, 5), np.float32)
    blocks = columns.reshape(1, 2, 2, 3, 3, 3)
    for i in range(3):
        for j in range(3):
            image[:, :, i : i + 2, j : j + 3] += blocks[..., i, j]
    return [image]


CASES = [
    *(
        _resize(scales=scales, mode=mode, coordinate_transformation_mode=way)
        for mode in _MODES
        for way in _WAYS
        for scales in (_UP, _DOWN)
        # onnxruntime reads align_corners from the rounded size, the specification from the scale
        if way != "align_corners"
    ),
    *(
        _resize(ints(1, 2, 7, 3), mode=mode, coordinate_transformation_mode="align_corners")
        for mode in _MODES
    ),
    *(
        _resize(scales=_UP, nearest_mode=near)
        for near in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    *(_resize(ints(1, 2, 3, 3), mode=mode, antialias=1) for mode in ("linear", "cubic")),
    _resize(scales=_DOWN, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    *(
        _resize(ints(7, 9), axes=[2, 3], keep_aspect_ratio_policy=policy, mode="linear")
        for policy in ("not_larger", "not_smaller")
    ),
    _resize(
        ints(1, 2, 3, 4),
        roi=_REGION,
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    ),
    Case("Resize", 13, (_IMAGE, None, _UP), {"mode": "linear"}, skip=(2,)),
    Case("Resize", 10, (_IMAGE, np.array([1, 1, 2, 3], np.float32)), skip=(1,)),
    Case("Resize", 10, (_IMAGE, np.array([1, 1, 2, 3], np.float32)), {"mode": "linear"}, skip=(1,)),
    Case("Upsample", 7, (_IMAGE,), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}),
    Case(
        "Upsample", 9, (_IMAGE, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}, skip=(1,)
    ),
    *(
        Case(
            "GridSample",
            20,
            (_IMAGE, uniform(-1.2, 1.2, 1, 3, 3, 2)),
            {"mode": mode, "padding_mode": edge, "align_corners": corners},
            skip=(1,) if mode == "nearest" else (),
        )
        for mode in ("linear", "nearest", "cubic")
        for edge, corners in (("zeros", 0), ("border", 1), ("reflection", 0))
    ),
    Case("GridSample", 16, (_IMAGE, uniform(-0.9, 0.9, 1, 3, 3, 2)), {"mode": "bilinear"}),
    Case("AffineGrid", 20, (_THETA, ints(1, 2, 3, 4)), {"align_corners": 1}),
    Case("AffineGrid", 20, (normal(2, 3, 4), ints(2, 1, 3, 4, 2))),
    Case("CenterCropPad", 18, (normal(4, 5, 3), ints(2, 8, 3)), oracle="reference"),
    Case("CenterCropPad", 18, (normal(4, 5), ints(7)), {"axes": [-2]}, oracle="reference"),
    Case("Col2Im", 18, (normal(1, 12, 9), ints(4, 5), ints(2, 3)), oracle=_unfolded),
    Case(
        "Col2Im",
        18,
        (normal(1, 4, 9), ints(5, 5), ints(2, 2)),
        {"pads": [0, 1, 0, 1], "strides": [1, 2], "dilations": [2, 1]},
    ),
    Case(
        "MaxUnpool",
        11,
        (normal(1, 1, 2, 2), ints([[[5, 7], [13, 15]]])),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    *(
        Case(
            "RoiAlign",
            opset,
            (normal(2, 2, 4, 5), _ROIS, ints(1, 0)),
            {"output_height": 2, "output_width": 3, "sampling_ratio": ratio, "mode": mode},
        )
        for opset in (10, 16)
        for mode, ratio in (("avg", 2), ("avg", 0), ("max", 2))
    ),
    Case(
        "DeformConv",
        19,
        (normal(1, 4, 4, 5), normal(2, 2, 2, 2), 0.4 * normal(1, 16, 3, 4), normal(2)),
        {"group": 2, "offset_group": 2},
        tolerance=1e-4,
    ),
    Case(
        "DeformConv",
        19,
        (
            normal(1, 2, 5, 5),
            normal(2, 2, 2, 2),
            0.4 * normal(1, 8, 3, 3),
            None,
            normal(1, 4, 3, 3),
        ),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [2, 2]},
        tolerance=1e-4,
    ),
]
