"""A supervisor with small children, as a process that can be stopped as a whole: `python -m tests.support.small_stack`.

Prints one line of JSON with `pids` when all work, and one with `said` for each thing it says.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from pipeline.cli.stack.child import Child, Service
from pipeline.cli.stack.supervisor import Supervisor

_ANSWERS = """
import os, signal, socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
def tick():
    while True:
        time.sleep(0.05)
        sum(range(1000))
threading.Thread(target=tick, daemon=True).start()
lock = threading.Lock()
signal.signal(signal.SIGUSR1, lambda *_: (lock.acquire(), lock.acquire()))
def compute(*_):
    until = time.thread_time() + 0.5
    while time.thread_time() < until:
        pass
signal.signal(signal.SIGUSR2, compute)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"ok")
    connection.close()
"""
"""Answers whoever connects. SIGUSR1 deadlocks its main thread while a second thread goes on ticking; SIGUSR2 has it
compute for half a second of processor time."""


def main(folder: str, silent_s: str, *ports: str) -> None:
    """Supervise until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    children = [_child(Path(folder), int(port)) for port in ports]
    supervisor = Supervisor(
        children, stop=stop, say=lambda text: _print(said=text), silent_s=float(silent_s), ask_s=float(silent_s) / 5
    )
    try:
        if supervisor.start(also=lambda: True, report=lambda _share, _text: None):
            _print(pids=[child.pid for child in children])
            supervisor.watch()
    finally:
        supervisor.stop_all()


def _child(folder: Path, port: int) -> Child:
    command = [sys.executable, "-S", "-E", "-c", _ANSWERS, str(port)]
    service = Service(f"child{port}", command, lambda _child: _answers(port))
    return Child(service, os.environ, folder / f"{port}.log")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            return connection.recv(2) == b"ok"
    except OSError:
        return False


def _print(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
