"""The Celery application: settings that were measured, with the fault each prevents.

Celery on Redis loses messages (a popped message is gone until it is recorded), so messages are hints: the dispatcher
sends them again, and a claim in SQL makes repeated ones harmless.
"""

from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from pipeline.jobs.store import QUEUES
from pipeline.services.event_jobs import JobLimits
from pipeline.settings import Settings, load_settings_or_exit

EVALUATE_SCHEDULES = "forefill.evaluate_schedules"
"""Name of the task that beat sends: the dispatcher's own look at schedules, once more."""

BEAT_S = 30.0
"""Seconds between two looks of beat at the schedules; the dispatcher looks every second by itself."""

BEAT_TICK_S = 5.0
"""Longest time between two ticks of beat, each of which it says in SQL."""


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for these settings."""
    limits = JobLimits(time_limit_s=settings.job_time_limit_s)
    return {
        "broker_url": settings.broker_url,
        "result_backend": None,  # state is SQL; results would only grow in the broker
        "task_ignore_result": True,
        "worker_deduplicate_successful_tasks": False,  # without a backend it drops redeliveries
        "task_serializer": "json",
        "accept_content": ["json"],  # never pickle: whoever reaches the broker could run code
        "task_queues": [_queue(name) for name in QUEUES],
        "task_default_queue": "interactive",
        "task_create_missing_queues": False,  # a misspelled queue fails at start
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,  # a killed child's message comes back within seconds
        "task_acks_on_failure_or_timeout": True,  # retry is decided in SQL
        "task_time_limit": limits.time_limit_s,  # a job stops by itself long before: this ends a hung tokenizer
        "task_soft_time_limit": limits.stop_after_s,  # a signal, see `ChildProcess`; a hung library may not notice
        "beat_schedule": {
            "evaluate-schedules": {
                "task": EVALUATE_SCHEDULES,
                "schedule": BEAT_S,
                "options": {"queue": "maintenance", "expires": BEAT_S},  # the next one makes up for it
            }
        },
        "beat_scheduler": "workers.beat:AnnouncedScheduler",
        "beat_max_loop_interval": BEAT_TICK_S,
        "worker_consumer": "workers.consumer:LastingConsumer",
        "worker_concurrency": settings.worker_concurrency,
        "worker_prefetch_multiplier": 0,
        "worker_disable_prefetch": True,  # with 0 above: no credit leaks on a timed-out acknowledgement
        "worker_proc_alive_timeout": 600.0,  # with 4 s a busy host kills children while they load, again and again
        "worker_max_tasks_per_child": 2000,
        "worker_max_memory_per_child": 1_500_000,  # KiB; above the tokenizers' and embedder's baseline
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": settings.soft_shutdown_s,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_send_task_events": True,  # one task is hundreds of passages: events cost nothing and Flower shows them
        "task_send_sent_event": True,  # by it Flower knows a task's queue, and those that wait
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a broker that refuses writes (its disk is full) would end the worker
        "broker_connection_timeout": 3,
        "task_publish_retry": False,  # the dispatcher publishes again by itself
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,  # without it a silent link hangs worker and publisher
            "socket_connect_timeout": 3,
            "health_check_interval": 5,
            "socket_keepalive": True,
            "client_name": "forefill",
        },
    }


def _queue(name: str) -> Queue:
    """Return a queue whose key is its own name; otherwise Flower shows the default queue's key beside each."""
    return Queue(name, Exchange("forefill", type="direct"), routing_key=name)  # type: ignore[no-untyped-call]  # kombu publishes no types


def create_app(settings: Settings) -> Celery:
    """Build the application; nothing is connected yet."""
    app = Celery("forefill", set_as_current=True)
    app.conf.update(celery_settings(settings))
    return app


def load_app() -> Celery:
    """Build the application of this process from its settings."""
    return create_app(load_settings_or_exit("worker"))
