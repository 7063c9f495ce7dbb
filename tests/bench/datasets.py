"""The data that are backed up: KERNEL (a source tree), BIG (one file system image), MANY (small files of words).

Each is made once, below `work/data`, unless a place for it is named. The smoke run has tiny ones of the same shape.
"""
import glob
import os
import random
import shutil
import subprocess
from pathlib import Path

PACKAGE = "linux-source-6.1"
IMAGE_BYTES = 2 << 30
USR_BYTES = 1_500_000_000
"""How much of /usr goes into BIG: leaves room for what the image's own tables take."""


def make(settings):
    """Where each wanted dataset is: {name: directory}. Makes what is missing; leaves out what cannot be made, with a word."""
    places = {}
    for name in settings.datasets:
        place = MAKERS[name](settings)
        if place is None:
            print(f"skipped: no {name.upper()}")
            continue
        places[name] = Path(place).absolute()
    return places


def count(place):
    """Files (all that are no directories) and their bytes below `place`."""
    sizes = [os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(place) for f in files]
    return len(sizes), sum(sizes)


def once(place, maker):
    """Makes `place` by `maker(scratch)` if it is not there; a run that died leaves only the scratch."""
    if not place.exists():
        scratch = place.with_name(place.name + ".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        maker(scratch)
        scratch.rename(place)
    return place


# --- KERNEL ----------------------------------------------------------------------------------------------------------

def kernel(settings):
    if settings.kernel and os.path.isdir(settings.kernel):
        return settings.kernel
    place = settings.work / "data" / "kernel"
    if place.exists():
        return place
    if settings.smoke:
        return once(place, small_kernel)
    tarball = settings.kernel or next(iter(sorted(glob.glob("/usr/src/linux-source-*.tar.xz"))), None)
    if tarball:
        return once(place, lambda scratch: unpack(tarball, scratch))
    if shutil.which("apt-get"):
        return once(place, unpack_package)
    print(f"KERNEL needs --kernel, or Debian's package {PACKAGE}")
    return None


def unpack(tarball, place):
    subprocess.check_call(["tar", "xf", tarball, "-C", place, "--strip-components=1"])


def unpack_package(place):
    """Debian's package without installing it."""
    aside = place / ".package"
    aside.mkdir()
    subprocess.check_call(["apt-get", "download", "-q", PACKAGE], cwd=aside)
    subprocess.check_call(["dpkg-deb", "-x", next(aside.glob("*.deb")), aside / "root"])
    unpack(next((aside / "root/usr/src").glob("*.tar.*")), place)
    shutil.rmtree(aside)


def small_kernel(place):
    chance, vocabulary = random.Random(1), words(random.Random(2))
    for directory in ("Documentation/admin-guide", "Documentation/process", "drivers/net"):
        (place / directory).mkdir(parents=True)
        for n in range(12):
            (place / directory / f"{n:02}.txt").write_text(text(chance, vocabulary, 400))
    (place / "Documentation/admin-guide/README.rst").write_text("The first file that is read.\n")
    (place / "link").symlink_to("Documentation/process")


# --- BIG -------------------------------------------------------------------------------------------------------------

def big(settings):
    if settings.big:
        if os.path.isfile(os.path.join(settings.big, "big.img")):
            return settings.big
        print(f"--big {settings.big} holds no big.img")
        return None
    place = settings.work / "data" / "big"
    if place.exists():
        return place
    if settings.smoke:
        return once(place, small_image)
    if not shutil.which("mkfs.ext4"):
        print("BIG needs mkfs.ext4, or --big")
        return None
    return once(place, image_of_usr)


def image_of_usr(place):
    """An ext4 image of the first part of /usr, in the order of names, without mounting anything."""
    staged, left = place / "usr", USR_BYTES
    for directory, inside, files in os.walk("/usr"):
        inside.sort()
        target = staged / os.path.relpath(directory, "/usr")
        target.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            path = os.path.join(directory, name)
            if left > 0 and os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                shutil.copy2(path, target / name)
                left -= os.path.getsize(path)
    image = place / "big.img"
    with image.open("wb") as out:
        out.truncate(IMAGE_BYTES)
    subprocess.check_call(["mkfs.ext4", "-q", "-F", "-d", staged, image])
    shutil.rmtree(staged)


def small_image(place):
    chance = random.Random(3)
    with (place / "big.img").open("wb") as out:
        for n in range(128):
            out.write(bytes(65536) if n % 4 == 3 else chance.randbytes(65536))


# --- MANY ------------------------------------------------------------------------------------------------------------

def many(settings):
    place = settings.work / "data" / f"many-{settings.many_files}"
    return once(place, lambda scratch: make_many(scratch, settings.many_files))


def make_many(place, number):
    """Files of some 0.1 to 3 KB, the same on each machine, a hundred in each directory."""
    chance, vocabulary = random.Random(20260101), words(random.Random(20260102))
    for n in range(number):
        directory = place / f"{n // 10000:03}" / f"{n // 100 % 100:03}"
        if n % 100 == 0:
            directory.mkdir(parents=True)
        (directory / f"{n:07}.txt").write_text(text(chance, vocabulary, chance.randint(15, 450)))


def words(chance):
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(4000)]


def text(chance, vocabulary, length):
    return " ".join(chance.choices(vocabulary, k=length)) + "\n"


MAKERS = {"kernel": kernel, "big": big, "many": many}
