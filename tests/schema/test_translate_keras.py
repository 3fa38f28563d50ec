"""Keras models against Keras itself: as many trainable parameters, the same shapes and outputs."""

import json
import math
import random

import numpy as np
import onnx_ir
import pytest

from gradgauge.errors import GradgaugeError, InvalidSpec
from gradgauge.graph.read_spec import read_spec
from gradgauge.schema.spec import parse_spec
from gradgauge.schema.spec_shapes import count
from tests.specs import run


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on torch, its own configuration kept out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras

        yield keras


def sequential(keras, shape, *layers, **more):
    return keras.Sequential([keras.Input(shape, **more), *layers])


def mlp(keras):
    L = keras.layers
    return sequential(
        keras,
        (20,),
        L.Dense(30, activation="relu", kernel_initializer="he_normal"),
        L.Dropout(0.2),
        L.Dense(5, activation="softmax", use_bias=False),
    )


def cnn(keras):
    L = keras.layers
    return sequential(
        keras,
        (9, 8, 3),
        L.Conv2D(4, 3, padding="same", strides=2),
        L.BatchNormalization(center=False),
        L.ReLU(max_value=6.0),
        L.MaxPooling2D(),
        L.SeparableConv2D(6, 2),
        L.LeakyReLU(0.1),
        L.GlobalMaxPooling2D(),
        L.Dense(5),
    )


def steps(keras):
    L = keras.layers
    return sequential(
        keras,
        (20, 6),
        L.Conv1D(8, 3, activation="relu"),
        L.BatchNormalization(),
        L.MaxPooling1D(2),
        L.LSTM(7, return_sequences=True),
        L.BatchNormalization(),
        L.Bidirectional(L.GRU(5)),
        L.Dense(2),
    )


def cells(keras):
    L = keras.layers
    return sequential(
        keras,
        (12, 4),
        L.SimpleRNN(6, return_sequences=True),
        L.GRU(5, reset_after=False),
        L.RepeatVector(4),
        L.LSTM(3, return_sequences=True, unit_forget_bias=False),
        L.TimeDistributed(L.Dense(2)),
    )


def text(keras):
    L = keras.layers
    return sequential(
        keras,
        (12,),
        L.Embedding(50, 8),
        L.Bidirectional(L.LSTM(6)),
        L.Dense(1, activation="sigmoid"),
        dtype="int32",
    )


def volume(keras):
    L = keras.layers
    return sequential(
        keras,
        (6, 6, 6, 1),
        L.Conv3D(4, 3),
        L.GroupNormalization(2),
        L.AveragePooling3D(2),
        L.Reshape((-1, 4)),
        L.Permute((2, 1)),
        L.Flatten(),
        L.Dense(2),
    )


def unet(keras):
    L = keras.layers
    given = keras.Input((16, 16, 3))
    wide = L.Conv2D(8, 3, padding="same", activation="relu")(given)
    deep = L.Conv2D(12, 3, padding="same")(L.MaxPooling2D()(wide))
    up = L.Conv2DTranspose(8, 2, strides=2, padding="same")(deep)
    return keras.Model(given, L.Conv2D(2, 1)(L.Concatenate()([wide, up])))


def residual(keras):
    L = keras.layers
    given = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 7, strides=2)(L.ZeroPadding2D(3)(given))
    x = L.Activation("relu")(L.BatchNormalization(scale=False)(x))
    y = L.Add()([L.Conv2D(8, 3, padding="same")(x), x])
    y = L.DepthwiseConv2D(3, depth_multiplier=2)(y)
    y = L.LayerNormalization()(y)
    return keras.Model(given, L.Dense(3)(L.GlobalAveragePooling2D()(L.Dense(4)(y))))


def transformer(keras):
    L = keras.layers
    given = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 8)(given)
    y = L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = L.LayerNormalization(epsilon=1e-6)(L.Add()([x, y]))
    x = L.LayerNormalization()(x + L.Dense(8)(L.Dense(16, activation="gelu")(x)))
    return keras.Model(given, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def nested(keras):
    L = keras.layers
    block = sequential(keras, (8,), L.Dense(8, activation="tanh"), L.Dense(8))
    given = keras.Input((8,))
    return keras.Model(given, L.Dense(2)(L.Multiply()([block(given), given])))


NETS = [mlp, cnn, steps, cells, text, volume, unet, residual, transformer, nested]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_a_model_has_as_many_parameters_and_the_shape_keras_gives_it(keras, net):
    model = net(keras)
    counted = count(parse_spec(model.to_json()))
    assert counted.parameters == sum(math.prod(w.shape) for w in model.trainable_weights)
    *size, channels = model.output_shape[1:]
    # an image's channels are first here, last in Keras
    wanted = (channels, *size) if len(size) > 1 else (*size, channels)
    assert list(counted.shapes.values())[-1] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121", "InceptionV3", "Xception", "VGG16"])
def test_a_published_architecture_has_as_many_parameters(keras, name):
    model = getattr(keras.applications, name)(weights=None)
    theirs = sum(math.prod(w.shape) for w in model.trainable_weights)
    assert count(parse_spec(model.to_json())).parameters == theirs


def test_with_the_models_own_weights_the_outputs_are_keras(keras):
    """A convolution, dense layers and a recurrence, whose stored layouts differ the most."""
    L = keras.layers
    model = sequential(
        keras,
        (10, 6),
        L.Conv1D(8, 3, padding="same", activation="relu"),
        L.LSTM(7, return_sequences=True),
        L.GRU(5),
        L.Dense(2, activation="tanh"),
    )
    graph = read_spec(model.to_json())
    held = {name: graph.model.graph.initializers[name] for name in graph.laws}
    conv, lstm, gru, dense = dict.fromkeys(name.rsplit(".", 1)[0] for name in held)
    kernel, bias = stored(model.layers[0])
    put(held, f"{conv}.weight", kernel.transpose(2, 1, 0))
    put(held, f"{conv}.bias", bias)
    # Keras orders gates i, f, c, o and z, r, h; ONNX i, o, f, c and z, r, h
    for at, layer, order in ((lstm, 1, (0, 3, 1, 2)), (gru, 2, (0, 1, 2))):
        W, R, b = stored(model.layers[layer])
        put(held, f"{at}.weight", gates(W.T, order))
        put(held, f"{at}.recurrent", gates(R.T, order))
        put(held, f"{at}.bias", np.concatenate([gates(row, order) for row in np.atleast_2d(b)]))
    W, b = stored(model.layers[3])
    put(held, f"{dense}.weight", W.T)
    put(held, f"{dense}.bias", b)
    x = np.random.default_rng(0).standard_normal((3, 10, 6)).astype(np.float32)
    wanted = model(x).detach().numpy()
    np.testing.assert_allclose(run(graph, x), wanted, rtol=1e-4, atol=1e-5)


def stored(layer):
    return [weight.value.detach().numpy() for weight in layer.weights]


def gates(rows, order):
    return np.concatenate([np.split(rows, len(order))[i] for i in order])


def put(held, name, array):
    value = held[name]
    whole = np.asarray(array, np.float32).reshape(value.shape.numpy())
    value.const_value = onnx_ir.Tensor(whole.copy(), name=name)


def test_initializers_and_activations_are_read(keras):
    init = keras.initializers
    laws = {
        "glorot_uniform": init.GlorotUniform(),
        "he_uniform": init.HeUniform(),
        "lecun_normal": init.LecunNormal(),
        "normal": init.RandomNormal(0.0, 0.3),
        "truncated_normal": init.TruncatedNormal(0.0, 0.3),
        "uniform": init.RandomUniform(-0.3, 0.3),
        "constant": init.Constant(0.3),
        "orthogonal": init.Orthogonal(1.5),
        "identity": init.Identity(),
        "glorot_normal": init.VarianceScaling(2.0, "fan_avg", "untruncated_normal"),
        "lecun_uniform": init.VarianceScaling(2.0, "fan_out", "uniform"),
    }
    L = keras.layers
    dense = [L.Dense(6, kernel_initializer=law) for law in laws.values()]
    read = parse_spec(sequential(keras, (6,), *dense).to_json())
    assert [layer.init.weight.kind for layer in read.layers] == list(laws)
    assert read.layers[7].init.weight.gain == 1.5
    assert read.layers[10].init.weight.mode == "fan_out"
    assert read.layers[10].init.weight.gain == pytest.approx(math.sqrt(2))


def test_keras_2_is_read():
    dense = {"name": "d", "units": 4, "activation": "relu", "use_bias": True}
    inputs = {"batch_input_shape": [None, 8], "name": "i"}
    document = {
        "class_name": "Functional",
        "keras_version": "2.15.0",
        "config": {
            "name": "old",
            "layers": [
                {"class_name": "InputLayer", "config": inputs, "name": "i", "inbound_nodes": []},
                {
                    "class_name": "Dense",
                    "config": dense,
                    "name": "d",
                    "inbound_nodes": [[["i", 0, 0, {}]]],
                },
                {
                    "class_name": "Concatenate",
                    "config": {"name": "c", "axis": -1},
                    "name": "c",
                    "inbound_nodes": [[["d", 0, 0, {}], ["i", 0, 0, {}]]],
                },
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [["c", 0, 0]],
        },
    }
    counted = count(parse_spec(json.dumps(document)))
    assert counted.parameters == 36
    assert list(counted.shapes.values())[-1] == (12,)


def refusals(keras):
    L = keras.layers
    given = keras.Input((8, 8, 3))
    shared = L.Conv2D(3, 3, padding="same")
    two = keras.Model(given, [L.Flatten()(given), L.Conv2D(2, 3)(given)])
    yield sequential(keras, (8, 8, 3), L.Conv2D(2, 3, data_format="channels_first")), "first"
    yield sequential(keras, (8, 8, 3), L.ZeroPadding2D(((0, 1), (0, 1)))), "ends differ"
    yield sequential(keras, (8, 8, 3), L.UpSampling2D()), "UpSampling2D"
    yield sequential(keras, (8, 4), L.LSTM(3, go_backwards=True)), "go_backwards"
    yield sequential(keras, (None, None, 3), L.Conv2D(2, 3)), "left open"
    yield keras.Model(given, shared(shared(given))), "used 2 times"
    yield two, "2 outputs"


def test_what_has_no_translation_is_named(keras):
    for model, says in refusals(keras):
        with pytest.raises(InvalidSpec, match=says) as caught:
            parse_spec(model.to_json())
        assert caught.value.code == "not_translated"


def test_no_mangled_document_surprises(keras):
    """Values of a document replaced by others: read, or refused as a wrong spec."""
    strange = [None, True, -1, 2**70, 1.5, "x", [], [[]], {}, {"class_name": "x"}, ["a", 0, 0]]
    rng = random.Random(0)
    for net in (mlp, text, transformer, nested, residual):
        document = json.loads(net(keras).to_json())
        for place in rng.sample(list(places(document)), 80):
            for value in rng.sample(strange, 3):
                mangled = json.dumps(replaced(document, place, value))
                try:
                    count(parse_spec(mangled))
                except GradgaugeError:
                    continue


def places(document, at=()):
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*at, key))


def replaced(document, place, value):
    key, *rest = place
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = replaced(copy[key], rest, value) if rest else value
    return copy
