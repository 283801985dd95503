"""No long-term secret is in the memory of a worker that has used it: neither a pre-shared key nor a private one."""

import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ipc.roles import Role
from ipsecctl.wireshark import IKE_TABLE
from tests.lab import pki
from tests.lab.instance import Instance
from tests.lab.ping import ping
from tests.lab.pki import Key
from tests.lab.spd import IPV4, PSK, RIGHT_ID
from tests.lab.two import two_instances
from tests.lab.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
_UNREADABLE = ("[vvar", "[vsyscall]")


def memory_of(instance: Instance, role: Role) -> bytes:
    """Everything that the process of this role can read."""
    found = instance.role(role)
    assert found is not None
    parts = []
    with Path(f"/proc/{found.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{found.pid}/maps").read_text().splitlines():
            span, mode, *rest = line.split()
            if not mode.startswith("r") or rest[-1].startswith(_UNREADABLE):
                continue
            start, end = (int(one, 16) for one in span.split("-"))
            memory.seek(start)
            while start < end:
                part = memory.read(end - start)
                assert part, line
                parts.append(part)
                start += len(part)
    return b"".join(parts)


def numbers_of(key: Key) -> dict[str, int]:
    """The private numbers of a key."""
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        return {"d": private.d, "p": private.p, "q": private.q, "dmp1": private.dmp1, "dmq1": private.dmq1}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"d": key.private_numbers().private_value}
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return {"seed": int.from_bytes(key.private_bytes_raw(), "big")}


def traces_of(key: Key) -> dict[str, bytes]:
    """The private numbers as octets, in both orders; each half of them, since a part would be bad enough."""
    traces = {}
    for name, number in numbers_of(key).items():
        octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
        half = len(octets) // 2
        for part, piece in (("front", octets[:half]), ("back", octets[half:])):
            traces[f"{name}, {part}, big endian"] = piece
            traces[f"{name}, {part}, little endian"] = piece[::-1]
    traces["the lines of its file"] = pki.key_pem(key).splitlines()[1]
    return traces


def found_in(memory: bytes, traces: dict[str, bytes]) -> list[str]:
    return [name for name, octets in traces.items() if octets in memory]


def keys_of(instance: Instance, directory: Path) -> dict[str, bytes]:
    """The keys of the IKE SA, which its worker must have: so a key in its memory is found."""
    instance.ctl("capture-keys", str(directory / "keys"))
    (line,) = (directory / "keys" / IKE_TABLE).read_text().splitlines()
    words = line.split(",")
    return {"SK_ei": bytes.fromhex(words[2]), "SK_er": bytes.fromhex(words[3])}


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_the_worker_has_no_long_term_secret_and_the_loader_has(kind: str, tmp_path: Path) -> None:
    """The left side authenticates by pre-shared key, the right one by certificate, so one handshake uses both.

    The memory is read after rekeys of both kinds and another authentication. That the certificate is not revoked, an
    OCSP response in IKE tells, asked for by the left and given by the right side.
    """
    ca, key = pki.root(), pki.new_key(kind)
    issued = ca.issue("CN=right", [RIGHT_ID], key=key)
    psk = f'psk = "{PSK}"'
    authority = pki.write(tmp_path / "ca.pem", ca.pem)
    certificate = pki.write(tmp_path / "own.pem", issued.pem)
    private = pki.write(tmp_path / "own.key", pki.key_pem(key))
    response = pki.write(tmp_path / "own.ocsp", ca.ocsp(issued))
    left = f'auth = "psk"\nremote_auth = "certificate"\n{psk}\nca_files = ["{authority}"]\nrevocation_required = true'
    right = (
        f'auth = "certificate"\nremote_auth = "psk"\n{psk}\n'
        f'certificate_file = "{certificate}"\nkey_file = "{private}"\nown_ocsp_files = ["{response}"]'
    )
    shared = {
        "the key": PSK.encode(),
        'prf(PSK, "Key Pad for IKEv2")': hmac.digest(PSK.encode(), b"Key Pad for IKEv2", "sha256"),
    }
    with two_instances(left_spd=IPV4.left_spd(auth=left), right_spd=IPV4.right_spd(auth=right)) as two:
        wait_until(
            "a packet comes across",
            lambda: ping(two.wire.left, "10.2.0.1", source="10.1.0.1", wait_s=1.0).received == 1,
            timeout_s=30.0,
        )
        two.left.ctl("rekey", "nets", "--timeout", "60")
        two.left.ctl("rekey", "other", "--timeout", "60")
        two.right.ctl("down", "other", "--timeout", "60")
        two.left.ctl("up", "nets", "--timeout", "60")
        for instance in (two.left, two.right):
            keys = keys_of(instance, tmp_path)
            worker, loader = memory_of(instance, Role.IKE_WORKER), memory_of(instance, Role.POLICY_LOADER)
            assert found_in(worker, keys) == list(keys), "what is in the memory of the worker is not found"
            assert found_in(worker, {**shared, **traces_of(key)}) == []
            assert "the key" in found_in(loader, shared)
        assert found_in(memory_of(two.right, Role.POLICY_LOADER), traces_of(key))
