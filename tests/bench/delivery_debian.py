"""A Debian minbase root file system before and after its security updates, from the packages themselves.

What the archives that apt knows of on this machine hold today is taken: the point release as the old state, the
security archive as the new one. Both are written down beside the packages, so that a second run measures the same.
Maintainer scripts are not run: a layer's bulk is what packages contain.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
import urllib.request
from functools import cache as cache_once
from pathlib import Path

_TIMEOUT_S = 120

Package = dict[str, str]


def make_rootfs_pair(cache: Path) -> tuple[Path, Path]:
    """Return the tars of both root file systems, made below `cache` unless they are there."""
    pair = cache / "rootfs-old.tar", cache / "rootfs-new.tar"
    if not all(path.exists() for path in pair):
        old = load_index(cache, "old")
        new = load_index(cache, "new")
        names = minbase(old)
        newer = {name for name in names if name in new and is_newer(new[name], old[name])}
        lines = [f"{name} {old[name]['Version']} -> {new[name]['Version']}\n" for name in sorted(newer)]
        (cache / "rootfs-updates.txt").write_text("".join(lines))
        for path, is_new in zip(pair, (False, True), strict=True):
            tree = cache / path.stem
            for name in names:
                take_new = is_new and name in newer
                package = new[name] if take_new else old[name]
                archive = fetch(cache, f"{archive_of('new' if take_new else 'old')[0]}{package['Filename']}")
                subprocess.run(["dpkg-deb", "-x", archive, tree], check=True, timeout=_TIMEOUT_S)
            write_tar(tree, path)
    return pair


@cache_once
def archive_of(which: str) -> tuple[str, str]:
    """Return address and release of the archive that apt uses here: `old` is Debian's own, `new` the security one."""
    form = "$(REPO_URI) $(RELEASE)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
    for line in listed.splitlines():
        address, release = line.split()
        if release.endswith("-security") if which == "new" else "-" not in release:
            return address, release
    raise LookupError(f"apt knows of no {which} archive here: run apt-get update")


def load_index(cache: Path, which: str) -> dict[str, Package]:
    """Return the packages of an archive by name, the last version of each."""
    address, release = archive_of(which)
    index = f"{address}dists/{release}/main/binary-amd64/Packages.xz"
    file = fetch(cache, index, name=f"Packages-{which}.xz")
    found: dict[str, Package] = {}
    for paragraph in lzma.decompress(file.read_bytes()).decode().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields and ("Package" not in found or is_newer(fields, found[fields["Package"]])):
            found[fields["Package"]] = fields
    return found


def minbase(index: dict[str, Package]) -> list[str]:
    """Return the required packages and apt with all they depend on, the first of alternatives."""
    todo = [name for name, fields in index.items() if fields.get("Priority") == "required"]
    todo.append("apt")
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen or name not in index:
            continue
        seen.add(name)
        needs = f"{index[name].get('Depends', '')},{index[name].get('Pre-Depends', '')}"
        for need in needs.split(","):
            first = re.match(r"\s*([a-z0-9.+-]+)", need)
            if first:
                todo.append(first[1])
    return sorted(seen)


def is_newer(package: Package, other: Package) -> bool:
    """Compare versions as dpkg does."""
    versions = package["Version"], other["Version"]
    if versions[0] == versions[1]:
        return False
    return (
        subprocess.run(["dpkg", "--compare-versions", versions[0], "gt", versions[1]], check=False).returncode
        == 0
    )


def fetch(cache: Path, url: str, *, name: str = "") -> Path:
    """Return a file from the network, kept below `cache`."""
    path = cache / "fetched" / (name or url.rpartition("/")[2])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            beside = path.with_suffix(".part")
            beside.write_bytes(answer.read())
            beside.replace(path)
    return path


def write_tar(tree: Path, path: Path) -> None:
    """Write a folder as an image's layer: sorted by name, owned by root, with the times that the files have."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(tree.rglob("*")):
            archive.add(entry, arcname=str(entry.relative_to(tree)), recursive=False, filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member
