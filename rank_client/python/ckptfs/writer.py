"""A file of a step being written, as a binary file object."""
import ctypes
import io

from . import _lib, _memory

SMALL = 64 << 10   # writes below this are gathered
GATHER = 1 << 20   # and sent when there are so many


class WriteFile(io.RawIOBase):
    """Large writes go into shared memory straight from the caller's; small
    ones, such as the headers between storages, are gathered first.

    close() ends the file.  One that is left by an exception, or forgotten, is
    not ended, and then the step's commit fails.
    """
    takes_tensors = True  # write() does

    def __init__(self, save, handle, name):
        super().__init__()
        self._save, self._handle, self.name = save, handle, name
        self._at = 0
        self._small = bytearray()

    def writable(self):
        return True

    def tell(self):
        return self._at

    def _send(self, span):
        with self._save.rank.lock, _memory.device_of(span):
            self._save.handle  # raises where the save has ended
            _lib.call("file_write", self._handle, span.pointer, span.size,
                      span.memory, span.stream)

    def _flush_small(self):
        if self._small:
            gathered, self._small = self._small, bytearray()
            self._send(_memory.of_buffer(gathered))

    def write(self, data):
        """A buffer, or a contiguous torch tensor, also in CUDA memory."""
        if self._handle is None:
            raise ValueError(f"{self.name} is closed")
        if isinstance(data, (bytes, bytearray)) and len(data) < SMALL:
            size = len(data)
            self._small += data
        else:
            span = _memory.of_any(data)
            size = span.size
            if not size:
                return 0
            if size < SMALL and span.memory == _lib.HOST:
                self._small += _bytes_of(span)
            else:
                self._flush_small()
                self._send(span)
        if len(self._small) >= GATHER:
            self._flush_small()
        self._at += size
        return size

    def close(self):
        if self._handle is None or self.closed:
            super().close()
            return
        self._flush_small()
        handle, self._handle = self._handle, None
        with self._save.rank.lock:
            self._save.handle
            _lib.call("file_end", handle)
        super().close()

    def __exit__(self, kind, *_):
        if kind is not None:
            self._handle = None
        self.close()

    def __del__(self):
        self._handle = None


def _bytes_of(span):
    return (ctypes.c_ubyte * span.size).from_address(span.pointer)
