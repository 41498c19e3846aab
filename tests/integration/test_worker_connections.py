"""A worker outlives the loss of its broker, whatever it has not acknowledged by then."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.bootsteps import CLOSE, RUN
from celery.exceptions import CPendingDeprecationWarning
from kombu.exceptions import OperationalError

from pipeline.settings import Settings
from tests.support.valkey import ValkeyServer
from workers.app import create_app
from workers.consumer import LastingConsumer
from workers.tasks import RUN_JOB


def _consumer(app: Celery) -> Any:
    stub = SimpleNamespace(use_eventloop=False, num_processes=1, is_green=False, semaphore=None, flush=None)
    return LastingConsumer(lambda _request: None, app=app, controller=stub, pool=stub)


def test_a_broker_that_refuses_writes_is_asked_again(broker_server: ValkeyServer) -> None:
    """Its disk is full, for instance: it answers, and a worker that takes that for the end costs a restart."""
    app = create_app(Settings.model_validate({"broker_url": broker_server.url}))
    consumer = _consumer(app)
    turns: list[bool] = []

    class Blueprint:
        state = RUN

        def start(self, _parent: Any) -> None:
            """Consume once, which is a write."""
            turns.append(True)
            with app.connection_for_write() as connection:
                connection.default_channel.client.brpop("interactive", timeout=1)
            self.state = CLOSE

        def restart(self, _parent: Any) -> None:
            with broker_server.client() as client:
                client.config_set("min-replicas-to-write", 0)

    consumer.blueprint = Blueprint()
    with broker_server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            consumer.start()
        finally:
            client.config_set("min-replicas-to-write", 0)
    assert len(turns) == 2


def test_a_lost_connection_is_not_used_once_more() -> None:
    """Neither to put an unacknowledged message back, nor to acknowledge it when its task ends."""
    with ValkeyServer() as broker:
        app = create_app(Settings.model_validate({"broker_url": broker.url}))
        consumer = _consumer(app)
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
