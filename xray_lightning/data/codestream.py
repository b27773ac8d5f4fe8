"""The size that a compressed frame says it has, before anything decodes it."""

STARTS_JPEG, STARTS_J2K, STARTS_JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and SOF55 of JPEG-LS
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers that no length follows


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG (any process, JPEG-LS too) or JPEG 2000 frame; None where it is no such frame.

    A file may say one size in its DICOM attributes and another one in its frame, by which decoders go.
    Sources: ITU-T T.81 B.1 and B.2, T.87 C.2, T.800 A.5.1.
    """
    if frame.startswith(STARTS_JP2):
        start = frame.find(STARTS_J2K)
        return _of_jpeg2000(frame[start:]) if start > 0 else None
    if frame.startswith(STARTS_J2K):
        return _of_jpeg2000(frame)
    return _of_jpeg(frame) if frame.startswith(STARTS_JPEG) else None


def _of_jpeg2000(stream: bytes) -> tuple[int, int] | None:
    if len(stream) < 24:
        return None
    right, bottom, left, top = (int.from_bytes(stream[at : at + 4]) for at in (8, 12, 16, 20))
    return bottom - top, right - left


def _of_jpeg(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in FRAME_HEADERS:
            return int.from_bytes(stream[at + 5 : at + 7]), int.from_bytes(stream[at + 7 : at + 9])
        else:
            at += 2 if marker in ALONE else 2 + int.from_bytes(stream[at + 2 : at + 4])
    return None
