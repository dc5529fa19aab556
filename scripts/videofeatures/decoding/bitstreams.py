"""What a packet of a video says of who may refer to its picture: a look into its first bytes.

Nothing is decoded. In doubt, a picture counts as one that others refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Role(NamedTuple):
    """Who may refer to the picture of a packet.

    Attributes:
        layer: temporal sub-layer of HEVC, which only pictures of this one or higher ones refer to;
            0 elsewhere.
        is_reference: others of its own layer may refer to it.
        starts_sequence: nothing after it refers to anything before it, but for what
            `refers_back`.
        refers_back: it may refer to what is before the start of its sequence, and only others
            that do refer to it: a leading picture of HEVC, in an open group.
    """

    layer: int
    is_reference: bool
    starts_sequence: bool
    refers_back: bool = False


Look = Callable[[memoryview, bool], Role]
"""Takes a packet's bytes, and whether its container calls it a key frame. Raises an IndexError or a
ValueError of one that is damaged, or not simple."""


def look_of(codec: str, extradata: bytes) -> Look | None:
    """Return what looks into the packets of a stream; None if nothing is known of its codec.

    Args:
        codec: canonical name, as ffmpeg has it.
        extradata: of the stream.
    """
    if codec in ("h264", "hevc"):
        length_size = nal_length_size(codec, extradata)
        look = _look_into_h264 if codec == "h264" else _look_into_hevc
        return lambda data, is_key: look(data, length_size)
    if codec in ("vp8", "vp9"):  # what they refresh would have to be decoded
        return lambda data, is_key: Role(0, True, is_key)
    return Av1Look(extradata) if codec == "av1" else None


# --- H.264 (ITU-T H.264, 7.3.1) and HEVC (ITU-T H.265, 7.3.1.2)


def nal_length_size(codec: str, extradata: bytes) -> int:
    """Return the size in bytes of each NAL unit's length; 0 if start codes set them apart."""
    if codec == "h264" and extradata[:1] == b"\x01":
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 22 and extradata[:3] not in (b"\0\0\0", b"\0\0\1"):
        return (extradata[21] & 3) + 1
    return 0


def _nal_headers(data: memoryview, length_size: int) -> Iterator[tuple[int, int]]:
    """Yield the first two bytes of each NAL unit. ValueError if lengths do not add up."""
    if not length_size:
        whole = bytes(data)
        place = whole.find(b"\0\0\1")
        while 0 <= place < len(whole) - 4:
            yield whole[place + 3], whole[place + 4]
            place = whole.find(b"\0\0\1", place + 3)
        return
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + length_size], "big")
        yield data[place + length_size], data[place + length_size + 1]
        place += length_size + length
    if place != len(data):
        raise ValueError("damaged packet")


def _look_into_h264(data: memoryview, length_size: int) -> Role:
    is_reference, starts_sequence, has_picture = False, False, False
    for first, _ in _nal_headers(data, length_size):
        kind = first & 31
        if 1 <= kind <= 5:  # slices; nal_ref_idc is 0 in those that nothing refers to
            has_picture = True
            is_reference |= bool(first & 0x60)
            starts_sequence |= kind == 5  # IDR
        elif kind > 13:  # other layers
            is_reference = True
    return Role(0, is_reference or not has_picture, starts_sequence)


def _look_into_hevc(data: memoryview, length_size: int) -> Role:
    is_reference, starts_sequence, refers_back, layers = False, False, False, set()
    for first, second in _nal_headers(data, length_size):
        kind = first >> 1 & 63
        if (first & 1) << 5 | second >> 3:
            raise ValueError("several layers")
        if kind < 32:  # slices; up to 14, the even ones are sub-layer non-references
            is_reference |= kind > 14 or kind % 2 == 1
            starts_sequence |= 16 <= kind <= 21  # BLA, IDR or CRA
            refers_back |= kind in (8, 9)  # RASL
            layers.add((second & 7) - 1)  # nuh_temporal_id_plus1
    if not layers:
        return Role(0, True, False)
    (layer,) = layers
    return Role(layer, is_reference, starts_sequence, refers_back)


# --- AV1 (AV1 Bitstream & Decoding Process Specification, 5.3 to 5.9)

SEQUENCE_HEADER, FRAME_HEADER, FRAME, REDUNDANT_FRAME_HEADER = 1, 3, 6, 7
KEY_FRAME, SWITCH_FRAME = 0, 3
SELECT = 2
"""Value of `seq_force_…`: each frame says it."""


class _Bits:
    """Reads numbers from bytes, the highest bit first. Raises an IndexError behind the end."""

    def __init__(self, data: bytes):
        self._data = data
        self._place = 0

    def read(self, num_bits: int) -> int:
        number = 0
        for _ in range(num_bits):
            number = number << 1 | self._data[self._place >> 3] >> (7 - (self._place & 7)) & 1
            self._place += 1
        return number


class _Av1Sequence(NamedTuple):
    """What a sequence header says that is needed to read on in a frame header."""

    frame_id_bits: int
    order_hint_bits: int
    force_screen_content_tools: int
    force_integer_mv: int


class Av1Look:
    """Looks into the packets of one stream of AV1, each of which is a temporal unit."""

    def __init__(self, extradata: bytes):
        """
        Args:
            extradata: `av1C` (AV1 Codec ISO Media File Format Binding, 2.3), whose OBUs begin
                behind four bytes.
        """
        self._sequence: _Av1Sequence | None = None
        if extradata[:1] == b"\x81":
            for kind, payload in _obus(memoryview(extradata)[4:]):
                if kind == SEQUENCE_HEADER:
                    self._sequence = _read_av1_sequence(payload)

    def __call__(self, data: memoryview, is_key: bool) -> Role:
        is_reference, has_frame = False, False
        for kind, payload in _obus(data):
            if kind == SEQUENCE_HEADER:
                self._sequence = _read_av1_sequence(payload)
            elif kind in (FRAME, FRAME_HEADER, REDUNDANT_FRAME_HEADER):
                if self._sequence is None:
                    raise ValueError("no sequence header")
                has_frame = True
                is_reference |= _refreshes(payload, self._sequence)
        return Role(0, is_reference or not has_frame, is_key)


def _obus(data: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield type and first bytes of each unit. ValueError if sizes do not add up."""
    place = 0
    while place < len(data):
        header = data[place]
        place += 1
        if header & 4:  # an extension: spatial or temporal layers
            raise ValueError("several layers")
        size = len(data) - place
        if header & 2:
            size, shift = 0, 0
            while True:
                byte = data[place]
                size |= (byte & 127) << shift
                place, shift = place + 1, shift + 7
                if byte < 128:
                    break
        if place + size > len(data):
            raise ValueError("damaged packet")
        yield header >> 3 & 15, bytes(data[place : place + min(size, 64)])
        place += size


def _read_av1_sequence(payload: bytes) -> _Av1Sequence:
    """Read a sequence header (5.5.1). ValueError if it is one of a rare kind."""
    bits = _Bits(payload)
    bits.read(3 + 1)  # seq_profile, still_picture
    if bits.read(1):
        raise ValueError("a still picture")
    if bits.read(1):  # timing_info_present_flag
        bits.read(32 + 32)
        if bits.read(1):  # equal_picture_interval
            num_zeros = 0
            while not bits.read(1):
                num_zeros += 1
            bits.read(num_zeros)
        if bits.read(1):
            raise ValueError("a decoder model")
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):  # operating points
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)  # seq_tier
        if has_delay and bits.read(1):
            bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    frame_id_bits = 0
    if bits.read(1):
        frame_id_bits = bits.read(4) + 2
        frame_id_bits += bits.read(3) + 1
    bits.read(3 + 4)  # tools
    has_order_hint = bits.read(1)
    if has_order_hint:
        bits.read(2)
    screen = SELECT if bits.read(1) else bits.read(1)
    integer = SELECT
    if screen and not bits.read(1):
        integer = bits.read(1)
    return _Av1Sequence(frame_id_bits, bits.read(3) + 1 if has_order_hint else 0, screen, integer)


def _refreshes(payload: bytes, sequence: _Av1Sequence) -> bool:
    """Whether a frame is kept for others to refer to (5.9.2, up to `refresh_frame_flags`)."""
    bits = _Bits(payload)
    if bits.read(1):  # one that is there already is shown: where it is a key frame, it is kept anew
        return True
    kind, is_shown = bits.read(2), bits.read(1)
    if not is_shown or kind in (KEY_FRAME, SWITCH_FRAME):
        return True
    is_resilient = bits.read(1)
    bits.read(1)  # disable_cdf_update
    screen = sequence.force_screen_content_tools
    if screen == SELECT:
        screen = bits.read(1)
    if screen and sequence.force_integer_mv == SELECT:
        bits.read(1)
    bits.read(sequence.frame_id_bits)
    bits.read(1)  # frame_size_override_flag
    bits.read(sequence.order_hint_bits)
    is_intra = kind == 2
    if not (is_intra or is_resilient):
        bits.read(3)  # primary_ref_frame
    return bits.read(8) != 0
