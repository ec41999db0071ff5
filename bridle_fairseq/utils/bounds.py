"""Bounds of sizes in files and configurations.

They keep a damaged or hostile file from taking memory or time before its data are compared with its description, and
exceed any real model by far. The largest vision transformers have 56 blocks, width 15360 and 48 heads (ViT-e and
ViT-22B, arXiv 2209.06794 and 2302.05442). 1 MHz is five times the highest rate of sound cards, for ultrasound. Codecs
have up to 32 codebooks, and codes are stored in 16 bits.
"""

from bridle_fairseq.utils.schema import ListOf, Pair, Real, String, Whole

DEPTH, WIDTH, HEADS = Whole(1, 1024), Whole(1, 32768), Whole(1, 1024)
RATE, BINS = Whole(100, 1_000_000), Whole(1, 4096)
CODEBOOKS, CODES = Whole(1, 1024), Whole(2, 65536)

# Products. Mel filters are at most RATE x BINS / 40 numbers; patches are padded to whole ones; counts of codes are
# arrays of K x C.
RATE_TIMES_BINS, PATCH_VALUES, ALL_CODES = 1 << 28, 1 << 20, 1 << 22

ROWS = Whole(0, 1 << 40)  # of a manifest
LARGEST_SIZE = 1 << 40  # of a row: two years of sound at 16 kHz; the sizes of 8 million such rows add up in 64 bits
LENGTH = Whole(1, LARGEST_SIZE)
HASH = String(64, "[0-9a-z ]")  # or words, in codes that no checkpoint or manifest has given
NAME = String(100, "[A-Za-z0-9_ .-]")  # becomes part of a file name
SKIPPED = ListOf(Pair(ROWS, String(1 << 16)), 0, 1 << 22)  # rows, and why

MOST_WORKERS = 4096  # processes that read
LARGEST_IMAGE = 65536  # height and width in pixels

# The grid of codes and features (data/artifacts/codes.py says what each field is).
GRID = {
    "patches_per_segment": LENGTH,
    "segment_samples": LENGTH,
    "min_segment_samples": Whole(0, LARGEST_SIZE),
    "sample_rate": RATE,
    "frequency_patches": BINS,
    "patch_frames": Whole(1, 1024),
    "chunk_patches": LENGTH,
    "overlap_patches": Whole(0, LARGEST_SIZE),
    "image_size": Whole(1, LARGEST_IMAGE),
    "valid_crop": Real(0, 1, above=True),
    "patch_height": Whole(1, 1024),
    "patch_width": Whole(1, 1024),
    "columns": Whole(1, LARGEST_IMAGE),
    "rows": Whole(1, LARGEST_IMAGE),
    "num_frames": Whole(1, 65536),
    "frame_stride": Whole(1, 65536),
}
OTHER_GRID = Real(-1e15, 1e15)  # a field that a later version adds
