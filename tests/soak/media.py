"""Damaged sound, image and video files, and files that claim too much."""

import io
import socket
import struct
import zlib

import numpy as np
import soundfile
from mutate import damaged
from PIL import Image
from tally import Result

WAVE = 0.3 * np.sin(np.arange(24000) / 6) + 0.05 * np.random.default_rng(0).standard_normal(24000)
SOUNDS = [  # format, coding, rate, channels, extension
    ("WAV", "PCM_16", 16000, 1, "wav"),
    ("WAV", "FLOAT", 44100, 2, "wav"),
    ("WAV", "DOUBLE", 16000, 1, "wav"),
    ("WAV", "PCM_24", 8000, 1, "wav"),
    ("WAV", "MS_ADPCM", 22050, 1, "wav"),
    ("WAVEX", "PCM_U8", 16000, 1, "wav"),
    ("RF64", "PCM_16", 16000, 1, "wav"),
    ("W64", "PCM_16", 16000, 1, "wav"),
    ("AIFF", "PCM_16", 16000, 1, "wav"),
    ("CAF", "ALAC_16", 16000, 1, "wav"),
    ("FLAC", "PCM_16", 44100, 2, "flac"),
    ("FLAC", "PCM_24", 16000, 1, "flac"),
    ("OGG", "VORBIS", 22050, 2, "ogg"),
    ("OGG", "OPUS", 16000, 1, "opus"),
    ("MP3", "MPEG_LAYER_III", 44100, 2, "mp3"),
]
VIDEOS = [
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("webm", "libvpx-vp9"),
    ("avi", "mpeg4"),
    ("mov", "mpeg4"),
    ("ts", "mpeg2video"),
]
PLAYLISTS = [
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{address}/x.ts\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXTINF:1,\nfile://{file}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile {file}\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>http://{address}/x.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
    '<svg xmlns="http://www.w3.org/2000/svg"><image href="http://{address}/x.png"/></svg>',
    "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n({file}.new) (w) file closefile\nshowpage\n",
]


def sounds():
    """Pairs of an extension and the bytes of an undamaged file."""
    made = []
    for container, coding, rate, channels, extension in SOUNDS:
        file = io.BytesIO()
        samples = WAVE if channels == 1 else np.stack([WAVE, WAVE[::-1]], 1)
        soundfile.write(file, samples, rate, format=container, subtype=coding)
        made.append((extension, file.getvalue()))
    return made


def images():
    y, x = np.mgrid[:70, :90]
    picture = Image.fromarray((np.stack([x * 2, y * 3, x * y], -1) % 256).astype(np.uint8))
    frames = {"save_all": True, "append_images": [picture.rotate(20), picture.rotate(40)]}
    grey = Image.fromarray((x * 257).astype(np.uint16))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    made = []
    for extension, image, options in [
        ("jpg", picture, {"format": "JPEG"}),
        ("jpg", picture, {"format": "JPEG", "progressive": True, "exif": rotated}),
        ("jpg", picture.convert("CMYK"), {"format": "JPEG"}),
        ("png", picture, {"format": "PNG"}),
        ("png", picture.convert("P"), {"format": "PNG"}),
        ("png", picture.convert("RGBA"), {"format": "PNG"}),
        ("png", grey, {"format": "PNG"}),
        ("webp", picture, {"format": "WEBP"}),
        ("webp", picture, {"format": "WEBP", "lossless": True, **frames}),
        ("gif", picture.convert("P"), {"format": "GIF"}),
        ("gif", picture, {"format": "GIF", **frames}),
        ("bmp", picture, {"format": "BMP"}),
        ("tiff", picture, {"format": "TIFF", "compression": "tiff_lzw"}),
        ("tiff", picture, {"format": "TIFF", "compression": "jpeg"}),
        ("ppm", picture, {"format": "PPM"}),
    ]:
        file = io.BytesIO()
        image.save(file, **options)
        made.append((extension, file.getvalue()))
    return made


def videos():
    import av

    made = []
    for extension, codec in VIDEOS:
        memory = io.BytesIO()
        container = {"mkv": "matroska", "ts": "mpegts"}.get(extension, extension)
        with av.open(memory, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(14):
                pixels = np.zeros((48, 64, 3), np.uint8)
                pixels[:, number * 4 % 64 :][:, :8] = 255
                pixels[..., 1] = number * 10
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        made.append((extension, memory.getvalue()))
    return made


def strange_sound(random):
    """A sound file whose header or samples are extreme, but not damaged."""
    file, kind = io.BytesIO(), random.choice(["samples", "length", "wav", "flac"])
    if kind == "samples":
        samples = WAVE[:20000].astype(np.float32).copy()
        samples[random.randrange(20000) :][: random.choice([1, 50, 20000])] = random.choice(
            [np.nan, np.inf, -np.inf, 1e38, 3e38, 1e25, 1e10, 1e-42]
        )
        soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
        return "wav", file.getvalue()
    if kind == "length":
        length, rate = random.choice([0, 1, 2, 159, 400, 401]), random.choice([1, 7, 999, 192000, 655350, 2**31 - 1])
        soundfile.write(file, np.zeros((length, random.choice([1, 2, 64, 255]))), rate, format="WAV", subtype="PCM_16")
        return "wav", file.getvalue()
    if kind == "wav":
        soundfile.write(file, WAVE, 16000, format="WAV", subtype="PCM_16")
        data, (at, format) = bytearray(file.getvalue()), random.choice([(22, "<H"), (24, "<I"), (34, "<H"), (40, "<I")])
        size = struct.calcsize(format)
        value = random.choice([0, 1, 3, 255, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1]) % 256**size
        data[at : at + size] = struct.pack(format, value)
        return "wav", bytes(data)
    soundfile.write(file, WAVE, 16000, format="FLAC", subtype="PCM_16")
    data = bytearray(file.getvalue())
    fields = int.from_bytes(data[18:26], "big")  # rate (20 bits), channels, depth, number of samples (36 bits)
    fields = fields & ~(2**36 - 1) | random.choice([0, 1, 10**9, 2**36 - 1])
    if random.random() < 0.5:
        fields = fields & (2**44 - 1) | random.choice([0, 1, 999, 2**20 - 1]) << 44
    data[18:26] = fields.to_bytes(8, "big")
    return "flac", bytes(data)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def strange_image(random):
    """A PNG of any size and kind whose pixels are all 0, or whose data end early."""
    width, height = (random.choice([1, 2, 64, 3000, 9400, 30000, 10**6, 2**31 - 1]) for _ in "wh")
    depth, colour, channels = random.choice(
        [(8, 2, 3), (16, 0, 1), (8, 6, 4), (16, 6, 4), (1, 0, 1), (8, 0, 1), (16, 2, 3)]
    )
    row = 1 + (width * depth * channels + 7) // 8
    rows = max(0, min(height, 300_000_000 // row))
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(row)) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, random.choice([0, 0, 1]))
    return "png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def with_checksums(data):
    """A damaged PNG with right checksums, so that what is damaged is read."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


class Media:
    """Files of one modality, read by the data set of training and by the reader of commands."""

    MAKE = {"audio": sounds, "image": images, "video": videos}

    def __init__(self, shop, kind):
        self.shop, self.kind = shop, kind
        self.seeds = self.MAKE[kind]()
        self.folder = shop.fresh(kind)
        self.reader = shop.reader
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)

    def attempt(self, random):
        self.shop.fresh(self.kind)
        undamaged = self.folder / f"other.{self.seeds[0][0]}"
        undamaged.write_bytes(self.seeds[0][1])
        extension, data, address = self._file(random, undamaged)
        path = self.folder / f"file.{extension}"
        path.write_bytes(data)
        result = self.reader.read(self.kind, path)
        if address and (result.tried["ok"] or self._visited()):
            result.add("executed", f"what the file names was read: {data[:300]!r}", path)
        done = Result(problems=result.problems, megabytes=result.megabytes)
        done.tried["files"] += 1
        done.tried["refused"] += result.tried["refused"]
        return done

    def _file(self, random, undamaged):
        extension, data = random.choice(self.seeds)
        chance = random.random()
        if chance < 0.03:
            address = "{}:{}".format(*self.server.getsockname())
            text = random.choice(PLAYLISTS).format(address=address, file=undamaged)
            return extension, text.encode(), True
        if chance < 0.1 and self.kind == "audio":
            return *strange_sound(random), False
        if chance < 0.05 and self.kind == "image":
            return *strange_image(random), False
        for _ in range(random.choice([1, 1, 1, 2, 3])):
            data = damaged(data, random)
        if extension == "png" and random.random() < 0.5:
            data = with_checksums(data)
        if random.random() < 0.05:
            extension = random.choice(self.seeds)[0]
        return extension, data, False

    def _visited(self):
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self):
        self.server.close()
