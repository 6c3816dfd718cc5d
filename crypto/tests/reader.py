"""A second reader of what ghostwire-store-crypto writes, made from docs/cryptography.md alone.

    reader.py FOLDER      reads FOLDER/case.json and prints what it found, as JSON
    reader.py STORE KEYRING IDENTITY [PIN]
                          reads a whole store that nobody has open, and prints where it stands
    reader.py --check     says whether what it needs is there

Primitives come from two packages: cryptography (47 or later) and pycryptodome. Exit status 77 means that
they are missing. It is for tests: it checks everything that a reader has to check, takes its time, and
keeps secrets where Python keeps them.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sqlite3
import struct
import sys

try:
    import cryptography
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from Crypto.Cipher import ChaCha20_Poly1305
except ImportError as missing:
    print(f"missing: {missing}; pip install 'cryptography>=47' pycryptodome", file=sys.stderr)
    sys.exit(77)

KINDS = ["head", "row", "chunk", "directory", "block", "audit", "journal", "signature"]
PURPOSES = ["store", "manifest", "tree-head"]
KEYRING, MANIFEST, STATE, SUCCESSOR = 1, 2, 3, 4


class Refused(Exception):
    """What is read is not what was written."""


def require(holds, why):
    if not holds:
        raise Refused(why)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def hkdf(key, salt, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


class Fields:
    """Fixed fields, one behind the other, numbers big-endian."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        require(self.at + length <= len(self.data), "it ends early")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def end(self):
        require(self.at == len(self.data), "it goes on")


# Bech32 and age


ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_sum(values):
    total = 1
    for value in values:
        top = total >> 25
        total = (total & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            total ^= generator if top >> bit & 1 else 0
    return total


def bech32_decode(prefix, text):
    require(text.startswith(prefix + "1"), "another prefix")
    values = [ALPHABET.index(symbol) for symbol in text[len(prefix) + 1:]]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    require(bech32_sum(expanded + values) == 1, "checksum")
    held, bits, out = 0, 0, bytearray()
    for value in values[:-6]:
        held, bits = held << 5 | value, bits + 5
        if bits >= 8:
            bits -= 8
            out.append(held >> bits & 0xFF)
    require(bits < 5 and held & ((1 << bits) - 1) == 0, "filling")
    return bytes(out)


def unbase64(text):
    decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    require(base64.b64encode(decoded).decode().rstrip("=") == text, "another form of base64")
    return decoded


def age_parse(data):
    """The stanzas, each with the place where it begins; the header up to its code; the code; the payload."""
    at, stanzas = 0, []

    def line():
        nonlocal at
        end = data.index(b"\n", at)
        found, at = data[at:end].decode("ascii"), end + 1
        return found

    require(line() == "age-encryption.org/v1", "another format")
    while True:
        begin, first = at, line()
        if first.startswith("--- "):
            return stanzas, data[:begin + 3], unbase64(first[4:]), data[at:]
        require(first.startswith("-> "), "a line of the header")
        body = ""
        while True:
            more = line()
            require(len(more) <= 64, "a line of the header is too long")
            body += more
            if len(more) < 64:
                break
        stanzas.append((begin, first[3:].split(" "), unbase64(body)))


def age_payload(file_key, payload):
    key = ChaCha20Poly1305(hkdf(file_key, payload[:16], b"payload"))
    sealed, out, number = payload[16:], b"", 0
    while True:
        chunk, sealed = sealed[:65536 + 16], sealed[65536 + 16:]
        nonce = number.to_bytes(11, "big") + (b"\0" if sealed else b"\1")
        out += key.decrypt(nonce, chunk, None)
        if not sealed:
            return out
        number += 1


def xwing_private(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def xwing_public(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key()
    curve = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key()
    return lattice.public_bytes_raw() + curve.public_bytes_raw()


def fingerprint(recipient):
    return sha256(b"ghostwire-store recipient 1", recipient)[:8]


# Signatures


def signer_id(purpose, keys):
    return sha256(b"ghostwire-store signer 1", bytes([PURPOSES.index(purpose) + 1]), keys)


def verify(purpose, keys, subject, body, signature):
    require(len(keys) == 32 + 1952 and len(signature) == 64 + 3309, "length of a signature")
    message = b"".join([
        b"ghostwire-store signed 1", bytes([PURPOSES.index(purpose) + 1, subject]),
        sha256(keys[:32]), sha256(keys[32:]), body,
    ])
    try:
        Ed25519PublicKey.from_public_bytes(keys[:32]).verify(signature[:64], message)
        MLDSA65PublicKey.from_public_bytes(keys[32:]).verify(signature[64:], message)
    except InvalidSignature as wrong:
        raise Refused("signature") from wrong


def public_keys(seeds):
    return (Ed25519PrivateKey.from_private_bytes(seeds[0]).public_key().public_bytes_raw()
            + MLDSA65PrivateKey.from_seed_bytes(seeds[1]).public_key().public_bytes_raw())


# The keyring


def read_stretch(fields):
    flag = fields.number(1)
    require(flag in (0, 1), "flag")
    if not flag:
        return None
    salt = fields.take(16)
    memory, passes, lanes = (fields.number(4) for _ in range(3))
    require(65536 <= memory <= 1048576 and 3 <= passes <= 16 and 4 <= lanes <= 16, "Argon2id")
    return salt, memory, passes, lanes


def read_authority(fields):
    authority = {"inventory": fields.take(32), "pin": fields.take(32)}
    for purpose in PURPOSES:
        authority[purpose] = (fields.take(32), fields.take(32))
    return authority


def read_header(data):
    fields = Fields(data)
    header = {"store": fields.take(16), "generation": fields.number(8)}
    header["versions"] = [fields.number(4) for _ in range(fields.number(2))]
    header["stretch"] = read_stretch(fields)
    header["signer"] = fields.take(32)
    header["recipients"] = [fields.take(8) for _ in range(fields.number(2))]
    fields.end()
    return header


def read_content(data):
    title = b"ghostwire-store keyring 1\n"
    require(data.startswith(title), "title")
    fields = Fields(data[len(title):])
    content = {"store": fields.take(16), "generation": fields.number(8), "before": fields.take(32)}
    content["stretch"] = read_stretch(fields)
    content["recipients"] = []
    for _ in range(fields.number(2)):
        recipient, root = fields.take(1216), fields.number(1)
        content["recipients"].append((recipient, root, fields.take(fields.number(1)).decode()))
    content["next version"] = fields.number(4)
    content["data keys"] = {}
    for _ in range(fields.number(2)):
        version, _since, key, commitment = fields.take(4), fields.number(8), fields.take(32), fields.take(32)
        expected = hkdf(key, content["store"], b"ghostwire-store data key 1" + version)
        require(hmac.compare_digest(expected, commitment), "a key that was not committed to")
        content["data keys"][int.from_bytes(version, "big")] = key
    content["next hash key"] = fields.number(4)
    content["hash keys"] = {}
    for _ in range(fields.number(2)):
        number, _since = fields.number(4), fields.number(8)
        content["hash keys"][number] = fields.take(32)
    content["authority"] = read_authority(fields)
    under_way = fields.number(1)
    require(under_way <= 2, "rotation under way")
    content["leaving"] = fields.number(4) if under_way else None
    content["leaving authority"] = read_authority(fields) if under_way == 2 else None
    fields.end()
    return content


def open_keyring(data, identity=None, passphrase=None):
    stanzas, header_bytes, code, payload = age_parse(data)
    first, last = stanzas[0], stanzas[-1]
    require(first[1] == ["ghostwire-store/keyring", "1"], "the first stanza")
    require(last[1] == ["ghostwire-store/signature", "1"], "the last stanza")
    header = read_header(first[2])
    if identity is None:
        salt, memory, passes, lanes = header["stretch"]
        stretch = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
        seed = stretch.derive(passphrase)
    else:
        seed = bech32_decode("age-secret-key-pq-", identity.lower())
    require(fingerprint(xwing_public(seed)) in header["recipients"], "another recipient")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    file_key = None
    for _, arguments, body in stanzas[1:-1]:
        require(arguments[0] == "mlkem768x25519" and len(arguments) == 2 and len(body) == 32, "a stanza")
        encapsulated = unbase64(arguments[1])
        require(len(encapsulated) == 1120, "a stanza")
        try:
            info = b"age-encryption.org/mlkem768x25519"
            file_key = suite.decrypt(encapsulated + body, xwing_private(seed), info)
            break
        except Exception:  # Somebody else's.
            continue
    require(file_key is not None, "no stanza opens")
    require(hmac.compare_digest(mac(hkdf(file_key, b"", b"header"), header_bytes), code), "header")
    content = read_content(age_payload(file_key, payload))
    keys = public_keys(content["authority"]["store"])
    expected = {
        "store": content["store"],
        "generation": content["generation"],
        "versions": list(content["data keys"]),
        "stretch": content["stretch"],
        "signer": signer_id("store", keys),
        "recipients": [fingerprint(recipient) for recipient, _, _ in content["recipients"]],
    }
    require(header == expected and len(stanzas) - 2 == len(content["recipients"]), "spliced")
    verify("store", keys, KEYRING, sha256(data[:last[0]], payload), last[2])
    return content


# Records


def padme(length):
    exponent = max(length, 2).bit_length() - 1
    kept = exponent.bit_length()
    mask = (1 << max(exponent - kept, 0)) - 1
    return (length + mask) & ~mask


def padded(kind, length):
    length += 12
    if kind in ("head", "row", "signature") and length <= 1024:
        return -(-length // 64) * 64
    if kind in ("chunk", "directory") and length <= 4012:
        return 4012
    return padme(length)


def open_record(content, kind, number, prefix, stored):
    require(len(stored) >= 45 + 12 and stored[0] == 2, "form")
    version, nonce, ciphertext, tag = stored[1:5], stored[5:29], stored[29:-16], stored[-16:]
    key = content["data keys"][int.from_bytes(version, "big")]
    subkey = hkdf(key, content["store"], b"ghostwire-store sealed 1 " + kind.encode())
    cipher = ChaCha20_Poly1305.new(key=subkey, nonce=nonce)
    cipher.update(b"".join([
        b"ghostwire-store zqlite sealed 1", b"\2", version, content["store"],
        bytes([KINDS.index(kind) + 1]), prefix,
    ]))
    plain = cipher.decrypt_and_verify(ciphertext, tag)
    found, length = struct.unpack(">QI", plain[:12])
    require(found == number, "moved")
    require(len(plain) == padded(kind, length) and not any(plain[12 + length:]), "misshapen")
    return plain[12:12 + length], tag


def inventory(content, records):
    total = bytes(32)
    for kind, number, tag in records:
        entry = bytes([KINDS.index(kind) + 1]) + number.to_bytes(8, "big") + tag
        code = mac(content["authority"]["inventory"], entry)
        total = bytes(one ^ other for one, other in zip(total, code))
    return total


# Manifest, attestation, pin


def open_manifest(content, record):
    fields = Fields(record)
    body = fields.take(200)
    signer, signature = fields.take(32), fields.take(3373)
    fields.end()
    keys = public_keys(content["authority"]["manifest"])
    require(signer == signer_id("manifest", keys), "signed by another key")
    verify("manifest", keys, MANIFEST, body, signature)
    fields = Fields(body)
    manifest = {"store": fields.take(16).hex()}
    manifest |= {name: fields.number(8) for name in ("epoch", "commit", "serial")}
    manifest |= {"block": fields.take(16).hex(), "block_hash": fields.take(32).hex()}
    names = ("checkpoint", "time", "rows", "blocks", "journal", "leaves")
    manifest |= {name: fields.number(8) for name in names}
    manifest |= {"inventory": fields.take(32).hex(), "before": fields.take(32).hex()}
    fields.end()
    return manifest


def follow(known, former, purpose, keys):
    """How many keys lie between the one that is known and these, each signed by the one before."""
    if signer_id(purpose, keys) == known:
        return 0
    ids = [signer_id(purpose, before) for before, _ in former]
    require(known in ids, "signed by another key")
    way = former[ids.index(known):]
    for (before, signature), after in zip(way, [following for following, _ in way[1:]] + [keys]):
        verify(purpose, before, SUCCESSOR, signer_id(purpose, after), signature)
    return len(way)


def read_former(data):
    length = 32 + 1952 + 64 + 3309
    require(len(data) % length == 0 and len(data) // length <= 32, "former signers")
    entries = [data[at:at + length] for at in range(0, len(data), length)]
    return [(entry[:1984], entry[1984:]) for entry in entries]


def open_attestation(text, known):
    lines = text.splitlines()
    require(lines[0] == "ghostwire-store attestation 1" and len(lines) >= 11, "attestation")
    names = ["store", "epoch", "commit", "serial", "block", "time", "digest", "purpose", "keys", "signature"]
    values = {}
    for name, line in zip(names, lines[1:]):
        found, value = line.split(" ")
        require(found == name, "order of lines")
        values[name] = value
    former = []
    for line in lines[11:]:
        name, keys, signature = line.split(" ")
        require(name == "former", "order of lines")
        former.append(tuple(base64.b64decode(part, validate=True) for part in (keys, signature)))
    keys = base64.b64decode(values["keys"], validate=True)
    successions = follow(known, former, values["purpose"], keys)
    numbers = [int(values[name]).to_bytes(8, "big") for name in ("epoch", "commit", "serial")]
    body = b"".join([
        bytes.fromhex(values["store"]), *numbers, bytes.fromhex(values["block"]),
        int(values["time"]).to_bytes(8, "big"), bytes.fromhex(values["digest"]),
    ])
    verify(values["purpose"], keys, STATE, body, base64.b64decode(values["signature"], validate=True))
    return [values["digest"], successions]


def open_pin(content, slots):
    """The newest mark of two slots, as its fields."""
    key, newest = content["authority"]["pin"], None
    for slot in (slots[:4096], slots[4096:]):
        line, _, filling = slot.partition(b"\n")
        if any(filling) or not line:
            continue
        unsigned, _, code = line.rpartition(b" ")
        if not hmac.compare_digest(mac(key, unsigned).hex().encode(), code):
            continue
        fields = unsigned.decode().split(" ")
        require(fields[:3] == ["ghostwire-store", "pin", "1"] and len(fields) == 10, "pin")
        order = (int(fields[4]), int(fields[5]))
        if newest is None or order > newest[0]:
            newest = (order, fields[3:])
    require(newest is not None, "no slot holds a mark")
    return newest[1]


# A whole store, by docs/file-formats.md


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_leaf(content):
    """Place (table and key), number and tag of each data block."""
    at, before, entries = 0, b"", []
    while at < len(content):
        shared, at = varint(content, at)
        length, at = varint(content, at)
        place, at = before[:shared] + content[at:at + length], at + length
        number, at = varint(content, at)
        tag, at, before = content[at:at + 16], at + 16, place
        entries.append((place, number, tag))
    return entries


def read_head(content, stored):
    prefix, record = stored[:40], stored[40:]
    plain, _ = open_record(content, "head", 1, prefix, record)
    fields = Fields(plain)
    head = {"network": fields.take(16), "serial": fields.number(8), "block": fields.take(16)}
    head |= {"block_hash": fields.take(32)}
    head |= {name: fields.number(8) for name in ("time", "checkpoint", "oldest_block")}
    fields.take(8)  # Schema.
    head["side"], _lineage, _commit = (fields.take(16) for _ in range(3))
    head["epoch"], _position = fields.number(8), fields.number(8)
    fields.take(16 + 1)  # Check of the credential key, flags.
    names = ("commits", "rows", "next_slot", "first_entry", "immutable_until", "next_entry", "data_blocks",
             "leaves", "next_leaf", "next_data_block")
    head |= {name: fields.number(8) for name in names}
    head["sums"] = {kind: fields.take(32) for kind in ("row", "journal", "block", "directory")}
    head["overridden"], head["signature"], head["signature_hash"] = fields.take(32), fields.number(8), fields.take(32)
    fields.take(4 + 1 + 8 + 8 * (4 + 8))  # How far it is sealed anew.
    head["leaked_below"], head["leaked_sum"] = fields.number(4), fields.take(32)
    plain_part = Fields(prefix)
    found = plain_part.take(16), plain_part.number(8), plain_part.number(8)
    require(found == (head["side"], head["epoch"], head["commits"]), "the head's prefix")
    require(plain_part.number(8) <= content["generation"], "the keyring is older")
    return head


def check_signature(content, meta, head):
    record, _ = open_record(content, "signature", head["signature"], b"", meta[2])
    require(sha256(record) == head["signature_hash"], "the signature is of another moment")
    manifest = open_manifest(content, record)
    require(manifest["store"] == head["side"].hex(), "store")
    for name, most in (("commit", "commits"), ("epoch", "epoch"), ("serial", "serial"), ("checkpoint", "checkpoint")):
        require(manifest[name] <= head[most], name)
    if manifest["serial"] == head["serial"]:
        same = (manifest["block"], manifest["block_hash"], manifest["time"])
        require(same == (head["block"].hex(), head["block_hash"].hex(), head["time"]), "block")
    if manifest["commit"] == head["commits"]:
        require([manifest[name] for name in ("epoch", "serial", "checkpoint")]
                == [head[name] for name in ("epoch", "serial", "checkpoint")], "place")
        counts = [manifest[name] for name in ("rows", "blocks", "journal", "leaves")]
        require(counts == [head["rows"], head["serial"] + 1 - head["oldest_block"],
                           head["next_entry"] - head["first_entry"], head["leaves"]], "counts")
        require(manifest["inventory"] == sha256(*head["sums"].values()).hex(), "inventory")
    former = 0
    if 3 in meta:
        entries = read_former(open_record(content, "signature", 0, b"", meta[3])[0])
        keys, former = public_keys(content["authority"]["manifest"]), len(entries)
        require(follow(signer_id("manifest", entries[0][0]), entries, "manifest", keys) == former, "former")
    return manifest, former


def check_pin(content, stored, head, slots):
    """A mark that stands where the store does."""
    _store, *place, mark, anchor, signer = open_pin(content, slots)
    require([int(number) for number in place] == [head["epoch"], head["commits"], head["serial"]], "place of the pin")
    require(mark == sha256(stored).hex(), "the pin's head")
    label = b"ghostwire-store anchor 1"
    require(anchor == mac(content["authority"]["pin"], label, head["block_hash"]).hex(), "the pin's anchor")
    keys = public_keys(content["authority"]["manifest"])
    require(signer == signer_id("manifest", keys).hex(), "the pin's signer")


def check_leaked(content, database, head):
    """Whole records under a data key that leaked, which their tags do not bind."""
    total = bytes(32)
    tables = [("row", "rows", "slot"), ("chunk", "chunks", "number"), ("directory", "directory", "number"),
              ("journal", "journal", "number")]
    for kind, table, column in tables:
        for number, body in database.execute(f"SELECT {column},body FROM {table}"):
            if int.from_bytes(body[1:5], "big") < head["leaked_below"]:
                place = bytes([KINDS.index(kind) + 1]) + number.to_bytes(8, "big")
                code = mac(content["authority"]["inventory"], place, sha256(body))
                total = bytes(a ^ b for a, b in zip(total, code))
    require(total == head["leaked_sum"], "a record under a data key that leaked")


def read_store(path, content, pin):
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    meta = dict(database.execute("SELECT id,body FROM meta"))
    head = read_head(content, meta[1])
    records = {kind: [] for kind in head["sums"]}
    for slot, body in database.execute("SELECT slot,body FROM rows"):
        _, tag = open_record(content, "row", slot, b"", body)
        records["row"].append(("row", slot, tag))
    for number, body in database.execute("SELECT number,body FROM journal"):
        _, tag = open_record(content, "journal", number, b"", body)
        records["journal"].append(("journal", number, tag))
    for serial, frame, *parts in database.execute("SELECT serial,frame,changes,audit FROM blocks"):
        for kind, body, expected in zip(("block", "audit"), parts, (frame[:16], frame[16:])):
            _, tag = open_record(content, kind, serial, b"", body)
            require(tag == expected, "the tag beside a block")
            records["block"].append((kind, serial, tag))
    chunks = dict(database.execute("SELECT number,body FROM chunks"))
    listed = 0
    for number, body in database.execute("SELECT number,body FROM directory"):
        leaf, tag = open_record(content, "directory", number, b"", body)
        records["directory"].append(("directory", number, tag))
        for place, chunk, expected in read_leaf(leaf):
            rows, tag = open_record(content, "chunk", chunk, b"", chunks[chunk])
            length = int.from_bytes(rows[1:3], "big")
            require(tag == expected and rows[:1] + rows[3:3 + length] == place, "a data block")
            listed += 1
    require(listed == len(chunks) == head["data_blocks"], "the number of data blocks")
    for kind, sum_ in head["sums"].items():
        require(inventory(content, records[kind]) == sum_, f"the inventory of {kind}")
    check_leaked(content, database, head)
    manifest, former = check_signature(content, meta, head)
    if pin is not None:
        check_pin(content, meta[1], head, pin)
    return {
        "serial": head["serial"], "commits": head["commits"], "rows": len(records["row"]),
        "blocks": len(records["block"]) // 2, "journal": len(records["journal"]), "data_blocks": listed,
        "signature": head["signature"], "signed_commit": manifest["commit"], "former_signers": former,
        "leaked_below": head["leaked_below"],
    }


def read(folder):
    case = json.loads((folder / "case.json").read_text())
    content = open_keyring((folder / "keyring").read_bytes(), identity=case["identity"])
    stretched = open_keyring((folder / "keyring.passphrase").read_bytes(), passphrase=case["passphrase"].encode())
    records, contents = [], []
    for record in case["records"]:
        stored, prefix = bytes.fromhex(record["stored"]), bytes.fromhex(record["prefix"])
        plain, tag = open_record(content, record["kind"], record["number"], prefix, stored)
        records.append((record["kind"], record["number"], tag))
        contents.append(sha256(plain).hex())
        for wrong in (record["number"] + 1, record["number"]):
            altered = bytearray(stored)
            altered[-1] ^= wrong == record["number"]
            try:
                open_record(content, record["kind"], wrong, prefix, bytes(altered))
            except (Refused, ValueError):
                continue
            raise Refused("a record that should not open opened")
    head = bytes.fromhex(case["head"])
    return {
        "generation": content["generation"],
        "before": content["before"].hex(),
        "recipient": fingerprint(bech32_decode("age1pq", case["recipient"])).hex(),
        "versions": list(content["data keys"]),
        "next_version": content["next version"],
        "leaving": content["leaving"],
        "hash_key_ids": [sha256(b"ghostwire-store key id", key)[:4].hex() for key in content["hash keys"].values()],
        "passphrase_generation": stretched["generation"],
        "contents": contents,
        "inventory": inventory(content, records).hex(),
        "manifest": open_manifest(content, (folder / "manifest").read_bytes()),
        "attestation": open_attestation((folder / "attestation").read_text(), bytes.fromhex(case["known_signer"])),
        "former_signers": len(read_former((folder / "former").read_bytes())),
        "pin": open_pin(content, (folder / "pin").read_bytes()),
        "head_mark": sha256(head).hex(),
        "anchor": mac(content["authority"]["pin"], b"ghostwire-store anchor 1", bytes.fromhex(case["block_hash"])).hex(),
    }


def main():
    if int(cryptography.__version__.split(".")[0]) < 47:
        print(f"cryptography {cryptography.__version__} is too old; pip install 'cryptography>=47'", file=sys.stderr)
        sys.exit(77)
    if sys.argv[1] == "--check":
        return
    if len(sys.argv) == 2:
        print(json.dumps(read(pathlib.Path(sys.argv[1]))))
        return
    store, keyring, identity, *pin = (pathlib.Path(name) for name in sys.argv[1:])
    content = open_keyring(keyring.read_bytes(), identity=identity.read_text().strip())
    print(json.dumps(read_store(store, content, pin[0].read_bytes() if pin else None)))


main()
