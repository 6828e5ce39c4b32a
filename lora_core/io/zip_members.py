"""Where the members of a zip file lie, for zips whose members are stored as they are (``torch.save`` writes such).

Nothing is unpacked: a compressed member is an error, and so is one that reaches out of the file, so what is read can
never be more than the file holds. Source of the layout: PKWARE's APPNOTE, sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
from mmap import mmap
from typing import NamedTuple

from ..errors import CorruptFileError

Bytes = bytes | mmap

# signature, disk numbers, members on this disk and in all, bytes and offset of the directory, length of a comment
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
# One member of the directory: ... method at 4, compressed and full size at 8 and 9, lengths of name, extra, comment ...
_MEMBER = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MANY = 0xFFFFFFFF

# Each takes a few hundred bytes of memory. The largest pickles of LoRAs have some ten thousand.
MAX_MEMBERS = 200_000


class Member(NamedTuple):
    """The bytes of a member inside the file."""

    begin: int
    end: int


def zip_members(data: Bytes, label: str) -> dict[str, Member]:
    """Name -> place.

    Raises:
        CorruptFileError: not a whole zip, or one whose members are compressed, double, or not inside the file.
    """
    try:
        position, count = _directory(data)
        members: dict[str, Member] = {}
        for _ in range(count):
            row = _MEMBER.unpack_from(data, position)
            position += _MEMBER.size
            name_length, extra_length, comment_length = row[10:13]
            name = bytes(data[position : position + name_length]).decode("utf-8")
            extra = bytes(data[position + name_length : position + name_length + extra_length])
            position += name_length + extra_length + comment_length
            packed, size, offset = _wide(extra, (row[8], row[9], row[16]))
            if row[0] != b"PK\x01\x02" or name in members:
                raise ValueError(f"member {name!r} is listed twice or badly")
            if row[4] or packed != size:
                raise CorruptFileError(label, f"its member {name!r} is compressed", _SAVE_AGAIN)
            members[name] = _place(data, offset, size, name)
    except (struct.error, ValueError, OverflowError) as error:
        raise CorruptFileError(label, f"a broken or truncated zip ({error})") from None
    return members


_SAVE_AGAIN = "torch.save stores members as they are: save it again with it, or as safetensors."


def _directory(data: Bytes) -> tuple[int, int]:
    """Offset of the directory and number of its members, from the record that ends the file."""
    end = len(data) - _END.size
    if end < 0 or (fields := _END.unpack_from(data, end))[0] != b"PK\x05\x06":
        raise ValueError("no directory at its end")
    count, size, offset = fields[4:7]
    locator = end - _LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        end = _LOCATOR.unpack_from(data, locator)[2]
        wide = _END_64.unpack_from(data, end)
        if wide[0] != b"PK\x06\x06":
            raise ValueError("no directory where it says")
        count, size, offset = wide[7:10]
    if offset + size > end or count * _MEMBER.size > size or count > MAX_MEMBERS:
        raise ValueError(f"a directory of {count} members in {size} bytes at {offset}")
    return offset, count


def _wide(extra: bytes, numbers: tuple[int, ...]) -> list[int]:
    """Numbers that do not fit 32 bits stand in the extra field with id 1, in this order."""
    at = 0
    found: list[int] = list(numbers)
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            missing = [index for index, number in enumerate(numbers) if number == _MANY]
            # The directory's order is full size, packed size, offset; both sizes are equal here.
            for place, index in enumerate(missing):
                found[index] = struct.unpack_from("<Q", extra, at + 4 + 8 * place)[0]
        at += 4 + length
    return found


def _place(data: Bytes, offset: int, size: int, name: str) -> Member:
    """Behind the member's own header, whose name and extra field may have other lengths than in the directory."""
    local = _LOCAL.unpack_from(data, offset)
    begin = offset + _LOCAL.size + local[9] + local[10]
    if local[0] != b"PK\x03\x04" or begin + size > len(data):
        raise ValueError(f"member {name!r} is not inside the file")
    return Member(begin, begin + size)
