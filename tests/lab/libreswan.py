"""A libreswan to talk to: Debian's packages, a pluto for each namespace, over the kernel's ESP."""

from collections.abc import Mapping

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.lab.debian import LIBRARIES
from tests.lab.foreign import Foreign
from tests.lab.namespaces import Namespace, run
from tests.lab.pki import Authority, Issued

PACKAGES = (
    "libreswan",
    "libnss3-tools",
    # What the two depend on and Debian's smallest system lacks.
    *("libaudit1", "libbrotli1", "libcap-ng0", "libcap2", "libcom-err2", "libcrypt1", "libcurl3-nss"),
    *("libevent-2.1-7", "libevent-core-2.1-7", "libevent-pthreads-2.1-7", "libffi8", "libgcrypt20", "libgmp10"),
    *("libgnutls30", "libgpg-error0", "libgssapi-krb5-2", "libhogweed6", "libidn2-0", "libk5crypto3", "libkeyutils1"),
    *("libkrb5-3", "libkrb5support0", "libldap-2.5-0", "libldns3", "liblz4-1", "liblzma5", "libnettle8"),
    *("libnghttp2-14", "libnspr4", "libnss3", "libp11-kit0", "libpam0g", "libpcre2-8-0", "libpsl5", "librtmp1"),
    *("libsasl2-2", "libselinux1", "libsqlite3-0", "libssh2-1", "libssl3", "libsystemd0", "libtasn1-6", "libunbound8"),
    *("libunistring2", "libzstd1", "zlib1g"),
)
_COMMAND_TIMEOUT_S = 60.0

# Its programs call each other where they were built to be, in /usr; the overlay is read-only and its alone.
_LAUNCH = (
    'mount --make-rprivate / && mount -t overlay libreswan -o ro,lowerdir="$1/usr:/usr" /usr && shift && exec "$@"'
)


class Libreswan(Foreign):
    """A running pluto in `namespace`, from `with` to its end. Unavailable where its packages can't be fetched.

    `connections` is what stands in ipsec.conf; all of them are loaded. `secrets` is ipsec.secrets. The certificate
    `own` is known as "own", those of `authorities` are trusted.
    """

    def __init__(
        self,
        namespace: Namespace,
        connections: str,
        secrets: str = "",
        *,
        own: Issued | None = None,
        authorities: tuple[Authority, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(namespace, "libreswan", PACKAGES)
        self._log = self._state / "output"
        self._connections = connections
        self._secrets = secrets
        self._own = own
        self._authorities = authorities
        self._environment = environment or {}

    def whack(self, *arguments: str, check: bool = True) -> str:
        """Runs whack against this daemon, and waits for what it waits for."""
        return self._run("libexec/ipsec/whack", "--ctlsocket", f"{self._state}/run/pluto.ctl", *arguments, check=check)

    def initiate(self, name: str = "net") -> str:
        """Brings a connection up; LabError, with what pluto said, if it can't."""
        return self.whack("--initiate", "--name", name)

    def status(self) -> str:
        """Its Child SAs with their traffic."""
        return self.whack("--trafficstatus", check=False)

    def _program(self, name: str, *arguments: str) -> list[str]:
        settings = [f"{key}={value}" for key, value in self._environment.items()]
        library = f"LD_LIBRARY_PATH={self._root}/{LIBRARIES}:{self._root}/lib/x86_64-linux-gnu"
        return ["env", library, *settings, f"{self._root}/usr/{name}", *arguments]

    def _run(self, name: str, *arguments: str, check: bool = True) -> str:
        command = self._namespace.command(*self._program(name, *arguments))
        return run(command, check=check, timeout_s=_COMMAND_TIMEOUT_S)

    def _start(self) -> None:
        for folder in ("nss", "run", "ipsec.d"):
            (self._state / folder).mkdir()
        settings, secrets = self._state / "ipsec.conf", self._state / "ipsec.secrets"
        settings.write_text(self._connections)
        secrets.write_text(self._secrets)
        secrets.chmod(0o600)
        self._fill_nss()
        daemon = self._program(
            "libexec/ipsec/pluto",
            *("--nofork", "--stderrlog", "--log-no-time", "--no-dnssec", "--nhelpers", "0"),
            *(
                "--rundir",
                f"{self._state}/run",
                "--nssdir",
                f"{self._state}/nss",
                "--ipsecdir",
                f"{self._state}/ipsec.d",
            ),
            *("--secretsfile", str(secrets)),
        )
        self._launch("sh", "-c", _LAUNCH, "sh", str(self._root), *daemon)
        self.whack("--listen")
        socket = ("--ctlsocket", f"{self._state}/run/pluto.ctl")
        for line in self._connections.splitlines():
            if line.startswith("conn ") and line.split()[1] != "%default":
                self._run("libexec/ipsec/addconn", *socket, "--config", str(settings), line.split()[1])

    def _fill_nss(self) -> None:
        database = f"sql:{self._state}/nss"
        self._run("bin/certutil", "-N", "-d", database, "--empty-password")
        for number, authority in enumerate(self._authorities):
            file = self._state / "ca.pem"
            file.write_bytes(authority.pem)
            self._run("bin/certutil", "-A", "-d", database, "-n", f"ca{number}", "-t", "CT,,", "-a", "-i", str(file))
        if self._own is not None:
            file = self._state / "own.p12"
            no_secret = serialization.BestAvailableEncryption(b"lab")
            file.write_bytes(
                pkcs12.serialize_key_and_certificates(b"own", self._own.key, self._own.certificate, None, no_secret)
            )
            self._run("bin/pk12util", "-i", str(file), "-d", database, "-W", "lab")

    def _answers(self) -> bool:
        return (self._state / "run/pluto.ctl").exists() and "IKE" in self.whack("--globalstatus", check=False).upper()
