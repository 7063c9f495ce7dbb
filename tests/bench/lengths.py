"""The game of lengths: which of two sets of files is in a repository, told by what its keeper sees without a key.

The player knows the tool and both sets. He makes repositories of his own with keys of his own, some of each set, and
gives the repository in question to the set whose most alike repository is the most alike one. What he looks at is the
lengths of all files of the repository, and those of all entries where the tool writes them in clear: each of them, or
their sum, whichever tells his own repositories apart better.
"""
import itertools
import os
import random
import struct

SEGMENT_MAGIC, PUT, PUT2 = b"BORG_SEG", 0, 3
PACK_HEADER = struct.Struct("<8sB32sII")


def files(repo):
    """Lengths of the files of a repository."""
    return [os.stat(os.path.join(where, name)).st_size for where, _, names in os.walk(repo) for name in names]


def borg_entries(repo):
    """borg 1: a segment is a row of entries, each with its length and kind in clear."""
    found = []
    for path in (repo / "data").glob("*/*"):
        content = path.read_bytes()
        at = len(SEGMENT_MAGIC) if content.startswith(SEGMENT_MAGIC) else len(content)
        while at + 9 <= len(content):
            length, kind = struct.unpack_from("<IB", content, at + 4)
            if kind in (PUT, PUT2):
                found.append(length)
            at += max(length, 9)
    return found


def borg2_entries(repo):
    """borg 2: a pack is a row of objects, each with its lengths in clear."""
    found = []
    for path in (repo / "packs").glob("*/*"):
        content, at = path.read_bytes(), 0
        while at + PACK_HEADER.size <= len(content):
            magic, _, _, meta, data = PACK_HEADER.unpack_from(content, at)
            if magic != b"BORG_OBJ":
                raise SystemExit(f"{path} is no pack of borg 2 as it is known here")
            found.append(data)
            at += PACK_HEADER.size + meta + data
    return found


def distance(one, other):
    """How far two repositories are apart: the sum of differences of their lengths in order, from the longest on."""
    one, other = sorted(one, reverse=True), sorted(other, reverse=True)
    longest = max(len(one), len(other))
    pairs = zip(one + [0] * (longest - len(one)), other + [0] * (longest - len(other)))
    return sum(abs(a - b) for a, b in pairs)


def each(lengths):
    return sorted(lengths, reverse=True)


def in_all(lengths):
    return [sum(lengths)]


def told_by(look, known):
    """How much further the player's own repositories of different sets are apart than those of one set."""
    between = min(distance(look(one), look(other)) for one in known[0] for other in known[1])
    within = max(distance(look(one), look(other)) for lengths in known for one, other in itertools.combinations(lengths, 2))
    return (between + 1) / (within + 1)


def guess(seen, known, chance):
    """0 or 1: whose repository is the most alike, in what tells more, each length or their sum; by a coin if both are."""
    look = max(each, in_all, key=lambda look: told_by(look, known))
    nearest = [min(distance(look(seen), look(lengths)) for lengths in repositories) for repositories in known]
    return chance.randrange(2) if nearest[0] == nearest[1] else int(nearest[1] < nearest[0])


def small_files(root, which, seed):
    """40 files of 20 to 180 kB, 4 MB in all, whichever set it is; nothing of them compresses."""
    chance = random.Random(f"small {which} {seed}")
    cuts = [chance.randrange(20_000, 180_000) for _ in range(40)]
    lengths = [20_000 + (cut - 20_000) * 3_200_000 // sum(cut - 20_000 for cut in cuts) for cut in cuts]
    lengths[-1] += 4_000_000 - sum(lengths)
    write(root, {f"{number:02}.bin": length for number, length in enumerate(lengths)}, chance)


def large_file(root, which, seed):
    """One file of 50 MB, whose content depends on the set; nothing of it compresses."""
    write(root, {"large.bin": 50_000_000}, random.Random(f"large {which} {seed}"))


def write(root, lengths, chance):
    for name, length in lengths.items():
        (root / name).write_bytes(chance.randbytes(length))
        os.utime(root / name, (1_700_000_000, 1_700_000_000))


GAMES = {"40 small files": (small_files, False), "one file of 50 MB": (large_file, True)}
"""What makes the sets, and whether a chunker cuts their files."""
