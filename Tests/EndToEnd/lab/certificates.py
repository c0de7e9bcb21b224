"""The lab's certification authority and the one certificate that all its TLS servers share, made anew for each run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .processes import check


@dataclass(frozen=True)
class Certificates:
    """Files in PEM form."""

    authority: Path
    certificate: Path
    key: Path

    def environment(self) -> dict[str, str]:
        """What makes ordinary clients trust the lab's authority, and nothing else."""
        names = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        return {name: str(self.authority) for name in names}


def make_certificates(directory: Path, names: Iterable[str]) -> Certificates:
    """Makes an authority and a certificate for `names` with the openssl command."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, authority_key = directory / "authority.pem", directory / "authority.key"
    certificate, key, request = directory / "server.pem", directory / "server.key", directory / "server.csr"
    extensions = directory / "server.ext"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    check(
        *("openssl", "req", "-x509", *new_key, "-days", "3", "-subj", "/CN=Sandgate lab authority"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        *("-keyout", authority_key, "-out", authority),
    )
    check("openssl", "req", *new_key, "-subj", "/CN=Sandgate lab server", "-keyout", key, "-out", request)
    extensions.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names) + "\n")
    check(
        *("openssl", "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial"),
        *("-days", "2", "-extfile", extensions, "-out", certificate),
    )
    return Certificates(authority, certificate, key)
