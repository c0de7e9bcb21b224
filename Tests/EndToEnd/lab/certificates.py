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


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificates(directory: Path, names: Iterable[str]) -> Certificates:
    """Makes an authority and a certificate for `names` with the openssl command."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, authority_key = directory / "authority.pem", directory / "authority.key"
    check(
        *("openssl", "req", "-x509", *NEW_KEY, "-days", "3", "-subj", "/CN=Sandgate lab authority"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        *("-keyout", authority_key, "-out", authority),
    )
    alternatives = ",".join(f"DNS:{name}" for name in names)
    certificate, key = issue(directory, "server", "/CN=Sandgate lab server", f"subjectAltName={alternatives}")
    return Certificates(authority, certificate, key)


def issue(directory: Path, name: str, subject: str, extension: str) -> tuple[Path, Path]:
    """Another certificate of the authority that was made in `directory`, and its key; named after `name`."""
    certificate, key, request = (directory / f"{name}.{ending}" for ending in ("pem", "key", "csr"))
    extensions = directory / f"{name}.ext"
    check("openssl", "req", *NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
    extensions.write_text(f"{extension}\n")
    check(
        *("openssl", "x509", "-req", "-in", request, "-CA", directory / "authority.pem"),
        *("-CAkey", directory / "authority.key", "-CAcreateserial", "-days", "2"),
        *("-extfile", extensions, "-out", certificate),
    )
    return certificate, key
