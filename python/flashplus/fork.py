# SPDX-License-Identifier: BSD-3-Clause
"""Locks that the child of a fork finds free.

A thread that held one is not there in the child, and would never let go of it. What these locks guard is one dictionary
or one name, whole at every moment, so the child needs no more than a new lock.
"""

import os
import threading


class Lock:
    """A threading.Lock, or with `make` another kind, for `with`."""

    def __init__(self, make=threading.Lock):
        self._make = make
        self._renew()
        os.register_at_fork(after_in_child=self._renew)  # which keeps it for ever: for modules only

    def _renew(self):
        self._lock = self._make()

    def __enter__(self):
        self._lock.acquire()
        return self

    def __exit__(self, *_):
        try:
            self._lock.release()
        except RuntimeError:  # this thread forked inside the `with`, and the lock is a new one
            pass
