"""How a training stage is asked to stop: signals wait for a checkpoint, but not for ever."""

import signal
import time

import pytest

from alpaca_farm_core.errors import TrainingStoppedError
from alpaca_farm_core.pipeline.stop import StopRequest


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """A shell that starts the tests in the background has told them to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_waits_for_the_checkpoint_and_then_does_what_the_signal_does():
    stop, seen = StopRequest(), []

    def steps():
        with stop.listening():
            signal.raise_signal(signal.SIGINT)
            seen.append("step ended")
            assert stop.is_asked()
            stop.leave()

    with pytest.raises(KeyboardInterrupt):
        steps()
    assert seen == ["step ended"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_does_not_wait(monkeypatch):
    monkeypatch.setattr("alpaca_farm_core.pipeline.stop.TOGETHER_SECONDS", 0.0)

    def steps():
        with StopRequest().listening():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        steps()


def test_signals_that_come_together_are_one_request():
    seen = []

    def steps():
        with (stop := StopRequest()).listening():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            seen.append("step ended")
            stop.leave()

    with pytest.raises(KeyboardInterrupt):
        steps()
    assert seen == ["step ended"]


def test_a_step_that_does_not_end_is_interrupted(monkeypatch):
    monkeypatch.setattr("alpaca_farm_core.pipeline.stop.PATIENCE_SECONDS", 0.2)

    def steps():
        with StopRequest().listening():
            signal.raise_signal(signal.SIGINT)
            time.sleep(30)
            pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        steps()


def test_the_deadline_ends_a_stage_with_an_error_that_says_how_to_go_on():
    stop = StopRequest(1e-9)

    def steps():
        with stop.listening():
            assert stop.is_asked()
            stop.leave()

    with pytest.raises(TrainingStoppedError, match="deadline of 1e-09 hours") as error:
        steps()
    assert "execution.deadline_hours" in error.value.next_action


def test_a_signal_in_the_last_step_is_not_lost():
    def steps():
        with StopRequest().listening():
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        steps()


def test_nobody_asks():
    stop = StopRequest(1.0)
    with stop.listening():
        assert not stop.is_asked()
