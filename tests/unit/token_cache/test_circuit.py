"""The circuit lets one probe a second find out whether a service is back."""

from pipeline.token_cache import Circuit
from tests.support.clocks import ManualClock


def test_a_closed_circuit_allows_every_call() -> None:
    circuit = Circuit(clock=ManualClock())
    assert [circuit.allows() for _ in range(3)] == [True, True, True]
    assert not circuit.is_open


def test_after_a_failure_one_call_per_period_is_let_through() -> None:
    clock = ManualClock()
    circuit = Circuit(open_s=1.0, clock=clock)
    assert circuit.record_failure()
    assert not circuit.allows()
    clock.advance(1.0)
    assert [circuit.allows() for _ in range(3)] == [True, False, False]
    clock.advance(1.0)
    assert circuit.allows()


def test_a_failed_probe_keeps_it_open_and_a_good_one_closes_it() -> None:
    clock = ManualClock()
    circuit = Circuit(open_s=1.0, clock=clock)
    circuit.record_failure()
    clock.advance(1.0)
    assert circuit.allows()
    assert not circuit.record_failure()
    assert not circuit.allows()
    clock.advance(1.0)
    assert circuit.allows()
    assert circuit.record_success()
    assert circuit.allows()
    assert not circuit.record_success()
