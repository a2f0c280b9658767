# SPDX-License-Identifier: BSD-3-Clause
"""A child of os.fork() finds the package's locks free, whatever the parent's threads held."""

import os
import signal
import threading
import time

from flashplus import exchange, fork, forward, library


def run_child(body, seconds=60):
    """The exit status of `body` in a child; one that hangs is killed, and None is returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def held_in_a_thread(lock):
    """Holds `lock` in another thread for the length of the `with`."""

    class Holder:

        def __enter__(self):
            self.held, self.done = threading.Event(), threading.Event()
            self.thread = threading.Thread(target=self.hold)
            self.thread.start()
            self.held.wait()

        def hold(self):
            with lock:
                self.held.set()
                self.done.wait()

        def __exit__(self, *_):
            self.done.set()
            self.thread.join()

    return Holder()


def test_library_lock(device):
    """As if another thread were opening the library."""
    opened, library._library = library._library, None
    try:
        with held_in_a_thread(library._lock):
            assert run_child(lambda: library.get().describe()) == 0
    finally:
        library._library = opened


def test_other_locks(device):
    for lock in (exchange._lock, forward._known._lock):

        def take():
            with lock, lock:  # re-entered, as finalisers do
                pass

        with held_in_a_thread(lock):
            assert run_child(take, seconds=20) == 0


def test_fork_inside(device):
    """Who forks while it holds a lock lets go of it in both processes."""
    lock = fork.Lock()

    def forked():
        with lock:
            pass

    with lock:
        child = os.fork()
    if child == 0:
        forked()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    forked()
