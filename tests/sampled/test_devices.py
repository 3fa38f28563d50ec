"""Which device is chosen, and that a GPU is asked for full precision and less than its memory."""

import torch

from gradgauge.sampled.devices import SHARE, choose


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose(None) == torch.device("cpu")


def test_a_gpu_is_taken_where_it_is_there_with_tf32_off_and_a_share_of_its_memory(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *at: told.append(at))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert choose(None) == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert told == [(SHARE, torch.device("cuda"))]


def test_the_device_asked_for_comes_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose("cpu") == torch.device("cpu")
