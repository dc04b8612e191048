"""What an encoded packet holds, read from its bytes without decoding it."""

_PICTURE = {
    "mpeg1video": b"\0\0\1\0",
    "mpeg2video": b"\0\0\1\0",
    "mpeg4": b"\0\0\1\xb6",
}  # the code before each picture's header
PLACEHOLDER = (
    20  # bytes: a shorter P-picture of MPEG-4 may be one that is not shown (FFmpeg's MAX_NVOP_SIZE)
)
MPEG = frozenset(_PICTURE)


def mpeg_kind(packet: bytes, codec: str) -> str | None:
    """Picture type ("I", "P", "B", "S") of a packet of MPEG-1, 2 or 4; "" without a picture, None
    where it may hold two or show none.

    After the start code MPEG-1 and 2 have 10 bits of order, then 3 of type (ISO/IEC 13818-2,
    6.2.3); MPEG-4 begins with 2 bits of type (ISO/IEC 14496-2, 6.2.5).
    """
    code = _PICTURE[codec]
    at = packet.find(code) + 4
    if at < 4:
        return ""
    if len(packet) < at + 2 or (codec == "mpeg2video" and packet.find(code, at) >= 0):  # two fields
        return None
    if codec != "mpeg4":
        return {1: "I", 2: "P", 3: "B"}.get(packet[at + 1] >> 3 & 7)
    kind = "IPBS"[packet[at] >> 6]
    return None if kind == "P" and len(packet) < PLACEHOLDER else kind


def from_sequence_header(packet: bytes, codec: str) -> bytes:
    """A key frame's packet without what the end of an earlier picture may have left before it, as
    after a seek in an MPEG stream.
    """
    header = (
        -1
        if codec == "mpeg4"
        else packet.rfind(b"\0\0\1\xb3", 0, max(packet.find(_PICTURE[codec]), 0))
    )
    return packet[header:] if header > 0 else packet


def shown_order(kinds: list[str]) -> list[int]:
    """When each picture is shown, counted from 0, given types in decoding order: an I- or P-picture
    after the B-pictures that follow it.

    A packet without a picture ("") has -1.
    """
    shown, waiting, count = [-1] * len(kinds), None, 0
    for at, kind in enumerate([*kinds, "I"]):
        done = at if kind == "B" else waiting
        if kind and done is not None:
            shown[done] = count
            count += 1
        if kind not in ("", "B"):
            waiting = at
    return shown


def is_unused_b(packet: memoryview | bytes, prefix: int) -> bool:
    """Tell whether a packet of H.264 holds a B-picture that no other picture refers to (ISO/IEC
    14496-10, 7.3.1 and 7.3.3).

    Each of its units follows its length in `prefix` bytes. A unit's first byte holds its
    `nal_ref_idc` and type; a slice begins with its first macroblock, 0 being the bit 1, and its
    type, B being 010 (1) or 00111 (6).
    """
    at, found = 0, False
    while at + prefix + 1 < len(packet):
        size, at = int.from_bytes(packet[at : at + prefix], "big"), at + prefix
        kind, used, begins = packet[at] & 31, packet[at] & 0x60, packet[at + 1]
        if 1 <= kind <= 5:
            if kind > 1 or used or not (found or begins >> 4 == 0b1010 or begins >> 2 == 0b100111):
                return False
            found = True
        at += size
    return found


def is_idr(packet: memoryview | bytes, prefix: int) -> bool:
    """Tell whether a packet of H.264, as in `is_unused_b`, holds an IDR picture, before which every
    decoder forgets all others.
    """
    at = 0
    while at + prefix < len(packet):
        size, at = int.from_bytes(packet[at : at + prefix], "big"), at + prefix
        if 1 <= packet[at] & 31 <= 5:
            return packet[at] & 31 == 5
        at += size
    return False
