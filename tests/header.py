"""The header of a GGUF file: its keys and where its tensors lie. For the other scripts here."""

import mmap
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Type id: (name, elements a block, bytes a block).
FORMATS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136), 30: ("BF16", 1, 2), 39: ("MXFP4", 32, 17),
}


class Tensor:
    """A tensor's place. `shape` has the innermost extent first, `start` counts from the file's."""

    def __init__(self, name, shape, kind, start):
        self.name, self.shape, self.kind, self.start = name, shape, kind, start
        self.elements = 1
        for extent in shape:
            self.elements *= extent
        _, elements, size = FORMATS[kind]
        self.bytes = self.elements // elements * size


class Header:
    """`keys`, `tensors` in the file's order, and `data_start`. The file may be cut after it."""

    def __init__(self, path):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self.data, self.at = data, 4
            if data[:4] != b"GGUF":
                raise ValueError(f"{path} is no GGUF file")
            self.version, tensors, keys = self.number("I"), self.number("Q"), self.number("Q")
            self.keys = {}
            for _ in range(keys):
                name = self.text()
                self.keys[name] = self.value(self.number("I"))
            infos = [self.tensor_info() for _ in range(tensors)]
            alignment = self.keys.get("general.alignment", 32)
            self.data_start = -(-self.at // alignment) * alignment
            self.tensors = [Tensor(*info, self.data_start + offset) for *info, offset in infos]
            del self.data

    @property
    def size(self):
        """Bytes of the whole file, padding aside."""
        return max((tensor.start + tensor.bytes for tensor in self.tensors), default=self.data_start)

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(SCALARS[kind])
        element, length = self.number("I"), self.number("Q")
        return [self.value(element) for _ in range(length)]

    def tensor_info(self):
        name, extents = self.text(), self.number("I")
        shape = [self.number("Q") for _ in range(extents)]
        return name, shape, self.number("I"), self.number("Q")
