"""A spawned child that imports onnxruntime, which starts threads, after it has been confined."""

from gradgauge.worker import answer


def infer(request, report):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request.threads
    session = onnxruntime.InferenceSession(request.source, options, ["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": np.ones((2, 3), np.float32)})
    return {"sum": float(output.sum()), "shape": list(output.shape)}


if __name__ == "__main__":
    answer.main({"infer": infer})
