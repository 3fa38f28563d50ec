"""Stands for onnxruntime's child and ends in every way a model could make it end."""

import os
import signal
import sys
import time

from gradgauge.worker import answer


def infer(request, link):
    ENDS[sys.argv[1]](request)
    return {}


def die(_request):
    os.kill(os.getpid(), signal.SIGFPE)


def hang(_request):
    time.sleep(600)


def eat(_request):
    bytearray(1 << 40)


def lie(request):
    with open(f"{request.exchange}/outputs.bin", "wb") as file:  # noqa: PTH123
        file.write(b'[{"name": "y", "dtype": "float32", "shape": [99999999]}]\n')


def flood(request):
    with open(f"{request.exchange}/outputs.bin", "wb") as file:  # noqa: PTH123
        file.writelines(bytes(1 << 20) for _ in range(1024))


def break_out(request):
    """Say on standard error what could be done that must not be possible."""
    for path in (f"{request.exchange}/inputs.bin", f"{request.exchange}/more", request.source):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        except OSError:
            continue
        raise AssertionError(path)
    if os.path.exists("/etc/hostname") and os.access("/etc/hostname", os.R_OK):  # noqa: PTH110
        try:
            os.close(os.open("/etc/hostname", os.O_RDONLY))
        except PermissionError:
            return
        raise AssertionError("/etc/hostname")


ENDS = {each.__name__: each for each in (die, hang, eat, lie, flood, break_out)}

if __name__ == "__main__":
    answer.main({"infer": infer})
