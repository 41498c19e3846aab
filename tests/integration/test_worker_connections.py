"""A worker outlives the loss of its broker, whatever it has not acknowledged by then."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import CPendingDeprecationWarning
from kombu.exceptions import OperationalError

from pipeline.settings import Settings
from tests.support.valkey import ValkeyServer
from workers.app import create_app
from workers.consumer import LastingConsumer
from workers.tasks import RUN_JOB


def test_a_lost_connection_is_not_used_once_more() -> None:
    """Neither to put an unacknowledged message back, nor to acknowledge it when its task ends."""
    with ValkeyServer() as broker:
        app = create_app(Settings.model_validate({"broker_url": broker.url}))
        stub = SimpleNamespace(use_eventloop=False, num_processes=1, is_green=False)
        consumer: Any = LastingConsumer(lambda _request: None, app=app, controller=stub, pool=stub)
        consumer.connection = app.connection_for_read()
        consumer.task_consumer = app.amqp.TaskConsumer(consumer.connection)
        channel = consumer.task_consumer.channel
        app.send_task(RUN_JOB, args=[1], queue="bulk", ignore_result=True)
        message = channel.basic_get("bulk")
        assert message is not None
        broker.kill()
        with pytest.warns(CPendingDeprecationWarning):  # of Celery 6, which would cancel jobs here
            consumer.on_connection_error_after_connected(OperationalError("lost"))
        message.ack()
        assert message.acknowledged
        assert consumer.connection is None
