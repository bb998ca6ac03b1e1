import pytest
import torch

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.training.launch import start_workers
from alpaca_farm_core.training.memory import CPU_TOKENS


def test_one_process_does_everything_itself():
    workers, execution = start_workers(ExecutionConfig(device="cpu"), "float32")
    assert (workers.rank, workers.size, workers.is_main) == (0, 1, True)
    assert execution.device == "cpu"
    assert execution.micro_batch_tokens == CPU_TOKENS
    assert workers.share([3, 1, 2]) == [3, 1, 2]
    values = torch.ones(2)
    assert workers.total(values) is values


def test_two_processes_share_a_batch_without_overlap():
    workers, _ = start_workers(ExecutionConfig(device="cpu"), "float32")
    first, second = (type(workers)(rank, 2, workers.device, "float32") for rank in (0, 1))
    assert first.share([5, 6, 7]) == [5, 7]
    assert second.share([5, 6, 7]) == [6]


def test_bfloat16_arithmetic_is_autocast():
    workers, _ = start_workers(ExecutionConfig(device="cpu"), "bfloat16")
    with workers.arithmetic():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_device_that_is_not_there():
    with pytest.raises(ModelError, match="cuda:99"):
        start_workers(ExecutionConfig(device="cuda:99"), "float32")
