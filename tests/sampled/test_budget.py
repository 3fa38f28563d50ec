"""A run's account: what is counted, what is refused, and that the whole analysis is held to it."""

import time

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from gradgauge.errors import AnalysisFailed, LimitExceeded
from gradgauge.ops.table import lookup
from gradgauge.pipeline import analyze
from gradgauge.sampled.budget import Budget, Spent, of_analysis
from gradgauge.sampled.executor import compile_graph
from gradgauge.schema.options import AnalysisOptions
from tests.handmade import made, node, orthogonal

QUICK = AnalysisOptions(profile="quick", remediate=False)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def chain(length):
    nodes = [node("Relu", "x", "v0"), *(node("Neg", f"v{i}", f"v{i + 1}") for i in range(length))]
    return onnx.load_model_from_string(made(nodes, {"x": [4, 8]}, f"v{length}"))


def little():
    return made([node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": orthogonal(8, 0)})


def loop(trips, *, scanned=()):
    """x + x, `trips` times; `scanned` is the shape of what each trip adds to a scan output."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Add", ["h", "h"], ["next"]),
            *([helper.make_node("Tile", ["next", "wide"], ["seen"])] if scanned else []),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1]),
            *([helper.make_tensor_value_info("seen", FLOAT, list(scanned))] if scanned else []),
        ],
    )
    outputs = ["y", "seen"] if scanned else ["y"]
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["n"], value_int=trips),
            helper.make_node("Constant", [], ["wide"], value_ints=list(scanned) or [1]),
            helper.make_node("Loop", ["n", "", "x"], outputs, name="turn", body=body),
        ],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_a_storage_that_several_values_share_counts_once_until_the_last_lets_go():
    spent = Spent(Budget(live_bytes=1 << 20))
    x = torch.zeros(100)
    spent.hold([x, x.view(10, 10), [x[:5]], None])
    assert spent.live == 400
    spent.release([x, x.view(10, 10)])
    assert spent.live == 400
    spent.release([[x[5:]], None])
    assert spent.live == 0


def test_values_that_are_dead_do_not_count_as_held():
    exe = compile_graph(chain(50), budget=Budget(live_bytes=3 * 128))
    assert len(exe(torch.ones(4, 8))) == 1
    with pytest.raises(LimitExceeded, match="Relu brings the values held to 256 bytes") as caught:
        compile_graph(chain(50), budget=Budget(live_bytes=255))(torch.ones(4, 8))
    assert caught.value.limit == "live_bytes=255"
    assert caught.value.where is not None


def test_the_account_of_what_is_held_costs_the_same_per_node_in_a_longer_graph():
    """Thirty thousand values alive: walking them all after each node would take minutes."""
    count = 30_000
    nodes = [node("Neg", "x", f"v{i}") for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"v{i}" for i in range(count)], ["y"]))
    model = onnx.load_model_from_string(made(nodes, {"x": [1, 1]}, "y"))
    exe = compile_graph(model, budget=Budget(live_bytes=1 << 30))
    began = time.monotonic()
    with torch.no_grad():
        exe(torch.ones(1, 1))
    assert time.monotonic() - began < 20


def test_what_a_loop_gathers_counts_as_held_before_it_is_stacked():
    model = loop(1000, scanned=(1000,))
    with pytest.raises(LimitExceeded, match="brings the values held to") as caught:
        compile_graph(model, budget=Budget(live_bytes=100_000))(torch.ones(1))
    assert caught.value.op == "Tile"
    assert len(compile_graph(loop(1000), budget=Budget(live_bytes=10_000))(torch.ones(1))) == 1


def test_what_a_loop_gathered_is_given_back_when_it_is_stacked():
    exe = compile_graph(loop(10, scanned=(8,)), budget=Budget(live_bytes=1 << 20))
    exe(torch.ones(1))
    assert exe._spent.live == 4  # y: the stacked rows are nobody's output, and dead


def test_trips_are_counted_and_named():
    with pytest.raises(LimitExceeded, match="Loop makes subgraph run 6, the limit is 5") as caught:
        compile_graph(loop(10), budget=Budget(loop_trips=5))(torch.ones(1))
    assert (caught.value.where, caught.value.limit) == ("node turn", "loop_trips=5")


def test_nesting_is_counted_and_named():
    with pytest.raises(LimitExceeded, match="Loop lies 1 deep, the limit is 0") as caught:
        compile_graph(loop(10), budget=Budget(nesting_depth=0))(torch.ones(1))
    assert caught.value.limit == "nesting_depth=0"


def test_the_clock_is_looked_at_before_each_node():
    exe = compile_graph(loop(10_000_000), budget=Budget(seconds=0.2))
    began = time.monotonic()
    with pytest.raises(
        LimitExceeded, match=r"would start after 0\.2 s, the limit is 0.2 s"
    ) as caught:
        exe(torch.ones(1))
    assert time.monotonic() - began < 2
    assert caught.value.limit == "seconds=0.2"
    assert caught.value.where is not None


def test_the_clock_of_one_run_starts_with_it_and_that_of_an_analysis_when_it_did():
    x = torch.ones(4, 8)
    own = compile_graph(chain(2), budget=Budget(seconds=60))
    assert len(own(x)) == len(own(x)) == 1
    late = compile_graph(chain(2), budget=Budget(seconds=60, since=time.monotonic() - 61))
    with pytest.raises(LimitExceeded, match="would start after 61"):
        late(x)


def test_a_single_node_larger_than_memory_is_refused_before_it_is_allocated():
    wide = helper.make_tensor("shape", INT64, [2], [1 << 20, 1 << 20])
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["shape"], value=wide),
            helper.make_node("Add", ["shape", "none"], ["hidden"]),
            helper.make_node("Expand", ["x", "hidden"], ["y"], name="bomb"),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, [1]),
            helper.make_tensor_value_info("none", INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    exe = compile_graph(model, budget=of_analysis(4 << 30, None, 0.0))
    with pytest.raises(LimitExceeded, match=f"Expand asks for {4 << 40} bytes") as caught:
        exe(torch.ones(1), torch.zeros(2, dtype=torch.int64))
    assert (caught.value.where, caught.value.op) == ("node bomb", "Expand")


def test_an_analysis_is_held_to_its_budget():
    given = little()
    assert analyze(given, QUICK).summary.verdict != "fail"
    for budget, limit in (
        (Budget(node_executions=0), "node_executions=0"),
        (Budget(live_bytes=10), "live_bytes=10"),
        (Budget(seconds=1, since=time.monotonic() - 2), "seconds=1"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            analyze(given, QUICK, budget=budget)
        assert (caught.value.op, caught.value.limit) == ("MatMul", limit)


def test_an_inputs_batch_is_held_to_the_budget_before_it_is_drawn():
    with pytest.raises(LimitExceeded, match="graph input 'x'") as caught:
        analyze(little(), QUICK, budget=Budget(output_bytes=100))
    assert caught.value.limit == "output_bytes=100"


def test_the_options_time_limit_is_the_runs_when_nobody_gives_a_budget():
    options = QUICK.model_copy(update={"time_limit_s": 1e-6})
    with pytest.raises(LimitExceeded, match="would start after"):
        analyze(little(), options)


_LOWEST = {t: np.iinfo(t).min for t in ("int8", "int16", "int32", "int64")}
_SHORT = np.array([[1, 2]], np.float32)


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "said"),
    [
        *(
            ("Div", (np.array([low], t), np.array([-1], t)), {}, "fit")
            for t, low in _LOWEST.items()
        ),
        *(
            ("Mod", (np.array([low], t), np.array([-1], t)), {}, "fit")
            for t, low in _LOWEST.items()
        ),
        *(("Div", (np.array([1], t), np.array([0], t)), {}, "division by zero") for t in _LOWEST),
        ("Div", (np.array([1], "uint8"), np.array([0], "uint8")), {}, "division by zero"),
        ("Mod", (np.array([1], "int32"), np.array([0], "int32")), {"fmod": 1}, "division by zero"),
        ("Pow", (np.array([2], "int64"), np.array([-1], "int64")), {}, "negative"),
        ("ReduceMean", (np.zeros((0, 3), "int64"), np.array([0])), {}, "mean of no integers"),
        ("ArgMax", (np.zeros((0, 3), "float32"),), {"axis": 0}, "non-zero size|numel|empty"),
        ("Gather", (_SHORT, np.array([7])), {}, "out of range"),
        ("GatherElements", (_SHORT, np.array([[-9]])), {}, "out of range"),
        ("GatherND", (_SHORT, np.array([[0, 5]])), {}, "out of (range|bounds)"),
        ("ScatterElements", (_SHORT, np.array([[9]]), _SHORT[:, :1]), {}, "out of range"),
        ("ScatterND", (_SHORT, np.array([[4]]), _SHORT), {}, "out of (range|bounds)"),
        ("TopK", (_SHORT, np.array([5])), {}, "out of range|k"),
        ("OneHot", (np.array([0]), np.array(-3), np.array([0.0, 1.0])), {}, "inconsistent"),
        ("Concat", (_SHORT, _SHORT), {"axis": 9}, "range"),
        ("LayerNormalization", (_SHORT, _SHORT[0]), {"axis": 77}, "axis 77 on 2 axes"),
        ("Split", (_SHORT,), {"num_outputs": 0}, "num_outputs=0"),
        ("Dropout", (_SHORT, np.array(2, "float32"), np.array(True)), {}, "ratio 2 is not"),  # noqa: FBT003
        ("LSTM", (np.ones((5, 1, 3)), np.ones((1, 16, 3)), np.ones((1, 8, 4))), {}, "R has shape"),
        ("GRU", (np.ones((5, 1, 3)), np.ones((1, 12, 9)), np.ones((1, 12, 4))), {}, "W has shape"),
        (
            "RNN",
            (np.ones((5, 1, 3)), np.ones((1, 4, 3)), np.ones((1, 4, 4))),
            {"hidden_size": 1 << 40},
            "hidden_size",
        ),
    ],
)
def test_what_has_no_result_is_an_error_that_names_the_node_and_never_a_signal(
    op, operands, attributes, said
):
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in operands]
    names = [f"i{k}" for k in range(len(arrays))]
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    asked = helper.make_node(op, names, ["y"], name="asked", **attributes)
    out = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph([asked], "g", infos, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(AnalysisFailed, match=said) as caught:
        compile_graph(model)(*(torch.from_numpy(a) for a in arrays))
    assert (caught.value.where, caught.value.op) == ("node asked", op)


def test_the_graphs_own_word_on_a_size_is_enough_to_refuse_it():
    """Before either engine runs, and although the graph has no input to sample."""
    drawn = helper.make_node("RandomNormal", [], ["y"], name="bomb", shape=[1 << 20, 1 << 20])
    out = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph([drawn], "g", [], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(LimitExceeded, match=f"RandomNormal asks for {4 << 40} bytes") as caught:
        analyze(model.SerializeToString(), QUICK)
    assert caught.value.op == "RandomNormal"


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Add", [(64, 1), (1, 64)], {}),
        ("MatMul", [(64, 0), (0, 64)], {}),
        ("MatMul", [(3, 1, 64, 2), (5, 2, 64)], {}),
        ("Gemm", [(64, 1), (64, 1)], {"transB": 1}),
        ("Gather", [(2, 64), (128,)], {"axis": 0}),
    ],
)
def test_no_output_slips_by_the_glance_at_its_inputs(op, inputs, attributes):
    made_of = [torch.ones(s, dtype=torch.long if len(s) == 1 else None) for s in inputs]
    run = lookup("", op, 20).run
    size = run(*made_of, **attributes).nbytes
    with pytest.raises(LimitExceeded, match=f"asks for {size} bytes"):
        Spent(Budget(output_bytes=size - 1)).ask("n", op, made_of, attributes)
    Spent(Budget(output_bytes=size)).ask("n", op, made_of, attributes)
