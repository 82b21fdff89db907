"""Makes the files of this folder, each of which tries something that a reader must refuse (tests/it/hostile.rs).

    python make.py
"""
import gzip
import io
import struct
import tarfile
import zipfile

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value):
    value = value.encode()
    return b"X" + struct.pack("<I", len(value)) + value


def number(value):
    return b"J" + struct.pack("<i", value)


def sizes(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key="0", count=4, offset=0, shape=(4,), strides=(1,)):
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    return (TENSOR + b"(" + storage + number(offset) + sizes(*shape) + sizes(*strides)
            + b"\x89ccollections\nOrderedDict\n)RtR")


def checkpoint(pickle, storage=bytes(16), compression=zipfile.ZIP_STORED, **more):
    entries = {"data.pkl": b"\x80\x02" + pickle + b".", "byteorder": b"little", "data/0": storage, "version": b"3\n"}
    entries.update(more)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(zipfile.ZipInfo("archive/" + name), content, compression)
    return buffer.getvalue()


def entry(value):
    return b"}(" + text("x") + value + b"u"


def laughs():
    # Forty lists, each of the one before twice: 2^40 values if they were written out.
    pickle = b"]q\x00"
    for level in range(40):
        pickle += b"0](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    return pickle


def nested(depth):
    return (b"}" + text("a")) * depth + b"N" + b"s" * depth


def overlap():
    # The central directory sends the second storage to the bytes of the first.
    plain = checkpoint(entry(tensor()), **{"data/1": bytes(16)})
    directory = plain.index(b"PK\x01\x02")
    records, at = [], directory
    while plain[at:at + 4] == b"PK\x01\x02":
        records.append(at)
        at += 46 + struct.unpack("<HHH", plain[at + 28:at + 34])[0]
    data = bytearray(plain)
    by_name = {bytes(plain[r + 46:r + 46 + struct.unpack("<H", plain[r + 28:r + 30])[0]]): r for r in records}
    zero, one = by_name[b"archive/data/0"], by_name[b"archive/data/1"]
    data[one + 42:one + 46] = data[zero + 42:zero + 46]
    return bytes(data)


def tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sparse():
    # A GNU sparse file of 8 TiB in 512 bytes.
    header = bytearray(tarfile.TarInfo("./model_weights.ckpt").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:398] = header[483:495] = b"\x80" + (1 << 43).to_bytes(11, "big")
    header[398:410] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar([CONFIG])[:1024] + bytes(header) + bytes(1024)


CONFIG = ("./model_config.yaml", b"seed: 1\n")
GOOD = checkpoint(entry(tensor()))
FILES = {
    "command.pt": checkpoint(b"cposix\nsystem\n" + text("true") + b"\x85R"),
    "evaluate.pt": checkpoint(b"\x8c\x08builtins\x8c\x04eval\x93" + text("1") + b"\x85R"),
    "laughs.pt": checkpoint(laughs()),
    "circle.pt": checkpoint(b"}q\x00(" + text("a") + b"h\x00" + text("b") + b"h\x00u"),
    "deep.pt": checkpoint(nested(100)),
    "views.pt": checkpoint(b"](" + b"".join(tensor(count=4096, shape=(4096 - i,)) for i in range(100)) + b"e",
                           storage=bytes(16384)),
    "expanded.pt": checkpoint(entry(tensor(shape=(1 << 30, 1 << 30), strides=(0, 0)))),
    "outside.pt": checkpoint(entry(tensor(offset=1))),
    "negative.pt": checkpoint(entry(tensor(shape=(-4,)))),
    "strides.pt": checkpoint(entry(tensor(shape=(4, 1)))),
    "short_storage.pt": checkpoint(entry(tensor(count=5))),
    "missing_storage.pt": checkpoint(entry(tensor(key="7"))),
    "climbing_storage.pt": checkpoint(entry(tensor(key="../../etc/passwd"))),
    "big_endian.pt": checkpoint(entry(tensor()), byteorder=b"big"),
    "compressed.pt": checkpoint(entry(tensor()), compression=zipfile.ZIP_DEFLATED),
    "overlap.pt": overlap(),
    "no_pickle.pt": checkpoint(b"", **{"data.pkl": None}),
    "endless.pt": checkpoint(text("x")[:1] + b"\xff\xff\xff\xff"),
    "text.pt": b"this is no checkpoint\n",
    "climb.nemo": tar([CONFIG, ("../model_weights.ckpt", GOOD)]),
    "absolute.nemo": tar([CONFIG, ("/model_weights.ckpt", GOOD)]),
    "link.nemo": tar([CONFIG, ("./model_weights.ckpt", "/etc/passwd")]),
    "sparse.nemo": sparse(),
    "bomb.nemo": gzip.compress(tar([CONFIG, ("./model_weights.ckpt", bytes(1 << 24))]), mtime=0),
    "no_weights.nemo": tar([CONFIG]),
}

for name, content in FILES.items():
    with open(name, "wb") as file:
        file.write(content)
