# SPDX-License-Identifier: BSD-3-Clause
"""libflashplus.so in this process: found and opened on first use, with one context.

Safe to call from many threads. Nothing here imports torch.
"""

import ctypes
import json
import logging
import os
import sys

from flashplus import __version__, c_api, environment, fork

HERE = os.path.dirname(os.path.abspath(__file__))


class Error(RuntimeError):
    """What the library said of a call that is well-formed and yet failed. `status` is a flashplus_status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def failure(status, message):
    """The exception for a status of the C API: ValueError for a value of the caller's, else a flashplus.Error."""
    if status == c_api.INVALID_ARGUMENT:
        return ValueError(message)
    if status == c_api.OUT_OF_MEMORY:
        return MemoryError(message)
    return Error(status, message)


class Library:
    """An opened library and a context in it."""

    def __init__(self, path):
        try:
            self.dll = ctypes.CDLL(path)
        except OSError as error:
            raise ImportError(f"libflashplus.so can't be opened: {error}. It belongs inside the package "
                              f"({os.path.join(HERE, 'lib')}); FLASHPLUS_LIBRARY names another one") from None
        c_api.declare(self.dll)
        self.path = path
        options = c_api.ContextOptions(struct_size=ctypes.sizeof(c_api.ContextOptions))
        torch = sys.modules.get("torch")
        if torch is not None and not environment.has_num_threads():
            options.num_threads = torch.get_num_threads()
        self._log = options.log = c_api.LOG(_log)  # kept: the library calls it as long as the context lives
        context = ctypes.c_void_p()
        self.check(self.dll.flashplus_context_create(ctypes.byref(options), ctypes.byref(context)))
        self.context = context.value
        self.forward = self.dll.flashplus_forward
        self.backward = self.dll.flashplus_backward
        self.merge_states = self.dll.flashplus_merge_states
        self.dropout_mask = self.dll.flashplus_dropout_mask
        # Called with the interpreter's lock, and says by a Python exception what PyTorch says of a tensor.
        self.forward_python = ctypes.PyDLL(path).flashplus_forward_python
        self.forward_python.restype, self.forward_python.argtypes = ctypes.c_int32, [ctypes.c_void_p] * 5
        self.forward_python_tuple = ctypes.PyDLL(path).flashplus_forward_python_tuple
        self.backward_python_tuple = ctypes.PyDLL(path).flashplus_backward_python_tuple
        for function in (self.forward_python_tuple, self.backward_python_tuple):
            function.restype = ctypes.c_int32
            function.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_int64, ctypes.c_int64]

    def last_error(self):
        return self.dll.flashplus_last_error().decode("utf-8", "replace")

    def check(self, status):
        if status != c_api.OK:
            raise failure(status, self.last_error())

    def counters(self):
        """Counters since the context was made: {'memory_hits': .., 'disk_hits': .., 'compiles': .., ...}."""
        counters = c_api.Counters(struct_size=ctypes.sizeof(c_api.Counters))
        self.check(self.dll.flashplus_get_counters(self.context, ctypes.byref(counters)))
        return {name: getattr(counters, name) for name, _ in counters._fields_ if name != "struct_size"}

    def describe(self):
        text = ctypes.c_char_p()
        self.check(self.dll.flashplus_describe(self.context, ctypes.byref(text)))
        return json.loads(text.value)


def _log(_, message):
    logging.getLogger("flashplus").warning("%s", message.decode("utf-8", "replace"))


# A wheel has the library by its SONAME alone (cmake/Wheel.cmake).
SONAME = "libflashplus.so." + ".".join(__version__.split(".")[:2])
_lock = fork.Lock()
_library = None


def get():
    """The library of this process."""
    global _library
    if _library is None:
        with _lock:
            if _library is None:
                _library = Library(environment.library() or os.path.join(HERE, "lib", SONAME))
    return _library


def counters():
    """Counters since the library was opened: {'memory_hits': .., 'disk_hits': .., 'compiles': .., ...}."""
    return get().counters()


def mark_ready(on_compile=None):
    """Says that everything is warm: from now on a kernel that has to be compiled is a warning (of the logger
    "flashplus"), or an error, flashplus.Error, that names it. counters()["late_compiles"] counts them.

    on_compile: "warn", "error", "allow" (as before), or None: what FLASHPLUS_LATE_COMPILE says, else "warn".
    """
    ways = {None: 0, "warn": 1, "error": 2, "allow": 3}
    if on_compile not in ways:
        raise ValueError(f"on_compile is {on_compile!r}; it must be 'warn', 'error', 'allow' or None")
    library = get()
    library.check(library.dll.flashplus_mark_ready(library.context, ways[on_compile]))


def drop_idle_kernels():
    """Frees the kernels that were neither made nor launched since the last call of this; returns how many.

    They come back, from the disk cache or compiled, when they are next wanted. Whoever replays CUDA graphs leaves it:
    a graph does not keep its kernels.
    """
    library = get()
    dropped = ctypes.c_int64()
    library.check(library.dll.flashplus_drop_idle_kernels(library.context, ctypes.byref(dropped)))
    return dropped.value


def describe():
    """What devices, compiler and cache the library has, and why others are not there."""
    return get().describe()
