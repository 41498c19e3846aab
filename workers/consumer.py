"""The worker's side of the broker's connection; two faults of Celery and kombu 5.7 must not end the worker."""

from typing import Any

from celery.worker.consumer import Consumer

from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


class LastingConsumer(Consumer):  # type: ignore[misc]  # Celery publishes no types
    """Outlives the loss of a connection while it owes the broker an acknowledgement.

    Otherwise the lost channel is used once more, to put messages back when it is closed, or to acknowledge a task that
    ends afterwards. Either raises what Celery does not expect, which ends the worker. Nothing needs to be put back or
    acknowledged there: running jobs go on, a message is a hint, and the dispatcher sends another one for every job that
    nobody has.
    """

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """See Celery's."""
        if self.task_consumer is not None:
            channel = self.task_consumer.channel
            channel.do_restore = False
            channel.basic_ack = channel.basic_reject = _too_late
        super().on_connection_error_after_connected(exc)


def _too_late(delivery_tag: str, **_options: Any) -> None:
    _log.info("broker.message_not_acknowledged", delivery_id=delivery_tag)
