"""A network that torch's inductor compiled into a shared library, called without Python's lock.

By the C interface of such libraries, torch/csrc/inductor/aoti_runtime/interface.h: torch's own binding holds the lock.
"""

import ctypes

import torch
from torch import Tensor

_Addresses = ctypes.c_void_p * 1

_python = ctypes.PyDLL(None)  # our own: the argument types of ctypes.pythonapi are shared by the whole process

_address_in = _python.PyCapsule_GetPointer
_address_in.argtypes, _address_in.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p

_capsule_of = _python.PyCapsule_New
_capsule_of.argtypes, _capsule_of.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p), ctypes.py_object


class LibraryNetwork:
    """The network in a library, for the CPU: one tensor in, one out, in up to `concurrency` threads at once.

    Raises OSError where the file is no such library, RuntimeError where the network cannot be created or fails.
    """

    def __init__(self, path: str, concurrency: int) -> None:
        library = ctypes.CDLL(path)
        self._run = library.AOTInductorModelContainerRun
        self._new_handle = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
        self._take_tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr
        self._network = ctypes.c_void_p()
        create = library.AOTInductorModelContainerCreateWithDevice
        if create(ctypes.byref(self._network), ctypes.c_size_t(concurrency), b"cpu", None):
            raise RuntimeError("the compiled network cannot be created")

    def __call__(self, pixels: Tensor) -> Tensor:
        one, made = ctypes.c_size_t(1), _Addresses()
        given = _Addresses(_address_in(self._new_handle(pixels), None))  # the library deletes that handle
        if self._run(self._network, given, one, made, one, None, None):
            raise RuntimeError("the compiled network failed")
        output: Tensor = self._take_tensor(_capsule_of(made[0], None, None))
        return output
