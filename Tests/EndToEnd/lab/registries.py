"""Package registries made of files, each with one package that greets: what a web server serves to package managers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

from . import plan
from .processes import check

NAME, VERSION = "sandgate-lab", "1.0.0"
GREETING = "hello from the lab's registry"
BLOB_SIZE = 8 << 20


def _archive(files: dict[str, str]) -> bytes:
    """A compressed tar with `files`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def make_blob(root: Path) -> str:
    """A file for downloads in parts; returns its SHA-256."""
    piece = bytes(range(256)) * 16
    data = b"".join(hashlib.sha256(str(index).encode()).digest() + piece for index in range(BLOB_SIZE // len(piece)))
    _write(root / "blob.bin", data)
    return hashlib.sha256(data).hexdigest()


def make_apt(root: Path) -> None:
    """A flat Debian repository with one package."""
    tree = root / "work"
    _write(
        tree / "DEBIAN" / "control",
        f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: lab <lab@example>\nDescription: greets\n",
    )
    _write(tree / "usr" / "share" / NAME / "greeting", GREETING + "\n")
    package = root / f"{NAME}_{VERSION}_all.deb"
    check("dpkg-deb", "--root-owner-group", "--build", tree, package)
    data = package.read_bytes()
    index = (tree / "DEBIAN" / "control").read_text()
    index += f"Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    _write(root / "Packages", index)
    packed = gzip.compress(index.encode())
    _write(root / "Packages.gz", packed)
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
        for name, content in (("Packages", index.encode()), ("Packages.gz", packed))
    )
    _write(root / "Release", f"Origin: lab\nSuite: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}")


def make_npm(root: Path) -> None:
    """An npm registry: one document and one tarball."""
    manifest = {"name": NAME, "version": VERSION, "main": "index.js"}
    tarball = _archive(
        {"package/package.json": json.dumps(manifest), "package/index.js": f"module.exports = {json.dumps(GREETING)}\n"}
    )
    _write(root / "-" / f"{NAME}-{VERSION}.tgz", tarball)
    dist = {
        "tarball": f"https://{plan.REGISTRY}/npm/-/{NAME}-{VERSION}.tgz",
        "shasum": hashlib.sha1(tarball).hexdigest(),
    }
    document = {"name": NAME, "dist-tags": {"latest": VERSION}, "versions": {VERSION: manifest | {"dist": dist}}}
    _write(root / NAME, json.dumps(document))


def make_cargo(root: Path, downloads: str = plan.REGISTRY) -> None:
    """A sparse cargo registry (RFC 2789), whose packages are at the name `downloads`."""
    top = f"{NAME}-{VERSION}"
    crate = _archive(
        {
            f"{top}/Cargo.toml": f'[package]\nname = "{NAME}"\nversion = "{VERSION}"\nedition = "2021"\n',
            f"{top}/src/lib.rs": f'pub const GREETING: &str = "{GREETING}";\n',
        }
    )
    _write(root / "crates" / f"{top}.crate", crate)
    dl = f"https://{downloads}/{root.name}/crates/{{crate}}-{{version}}.crate"
    _write(root / "config.json", json.dumps({"dl": dl}))
    line = {"name": NAME, "vers": VERSION, "deps": [], "features": {}, "yanked": False}
    _write(root / NAME[:2] / NAME[2:4] / NAME, json.dumps(line | {"cksum": hashlib.sha256(crate).hexdigest()}) + "\n")


def make_go(root: Path) -> None:
    """A Go module proxy with one module."""
    module = f"{plan.REGISTRY}/lab"
    versions = root / module / "@v"
    _write(versions / "list", f"v{VERSION}\n")
    _write(versions / f"v{VERSION}.info", json.dumps({"Version": f"v{VERSION}", "Time": "2026-01-01T00:00:00Z"}))
    _write(versions / f"v{VERSION}.mod", f"module {module}\n")
    with zipfile.ZipFile(versions / f"v{VERSION}.zip", "w") as archive:
        archive.writestr(f"{module}@v{VERSION}/go.mod", f"module {module}\n")
        archive.writestr(f"{module}@v{VERSION}/lab.go", f'package lab\n\nconst Greeting = "{GREETING}"\n')


def make_maven(root: Path) -> None:
    """A Maven repository with a parent POM and a build extension; Maven gives every extension plexus-utils."""
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    for group, name, version, packaging in (
        ("example.lab", "parent", VERSION, "pom"),
        ("example.lab", "extension", VERSION, "jar"),
        ("org.codehaus.plexus", "plexus-utils", "1.1", "jar"),
    ):
        pom = (
            f"<project><modelVersion>4.0.0</modelVersion><groupId>{group}</groupId><artifactId>{name}</artifactId>"
            f"<version>{version}</version><packaging>{packaging}</packaging></project>"
        )
        directory = root / group.replace(".", "/") / name / version
        files = {"pom": pom.encode(), "jar": jar.getvalue()}
        for kind in {"pom", packaging}:
            data = files[kind]
            path = _write(directory / f"{name}-{version}.{kind}", data)
            _write(path.with_name(path.name + ".sha1"), hashlib.sha1(data).hexdigest())


def make_gem(root: Path, work: Path) -> None:
    """A gem repository, its index made by gem itself."""
    specification = (
        f"Gem::Specification.new do |s|\n  s.name = '{NAME}'\n  s.version = '{VERSION}'\n  s.summary = 'greets'\n"
        "  s.authors = ['lab']\n  s.files = ['lib/greeting.rb']\nend\n"
    )
    source = _write(work / f"{NAME}.gemspec", specification)
    _write(work / "lib" / "greeting.rb", f"GREETING = {GREETING!r}\n")
    (root / "gems").mkdir(parents=True)
    check("gem", "build", "-C", work, source.name, "--output", root / "gems" / f"{NAME}-{VERSION}.gem")
    check("gem", "generate_index", "--directory", root)


def has_sparse_cargo() -> bool:
    """Whether there is a cargo that knows registries made of files: 1.68 and newer, which Debian 12 does not have."""
    try:
        version = check("cargo", "--version").split()[1].split(".")
    except (OSError, RuntimeError):
        return False
    return (int(version[0]), int(version[1])) >= (1, 68)
