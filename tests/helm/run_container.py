"""Runs one container of a pod like a container runtime, with a directory tree instead of an image.

    unshare --mount --pid --net --fork --kill-child python3 run_container.py SPEC.json

To join the network of a running container, use `nsenter --net` instead of `unshare --net`. The tree contains only the
binary and the files of the base image; for another image, the specification names its program. The process is process 1
with its own mounts, the user, group, capabilities, arguments and environment of the rendered pod, `no_new_privs` and a
read-only root file system.
"""

import ctypes
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys

# The content of gcr.io/distroless/cc-debian13: libc6, libgcc-s1, libstdc++6, libgomp1, libssl3t64, libzstd1, zlib1g,
# tzdata, ca-certificates, and the accounts root, nobody and nonroot. It has no shell.
LIBRARIES = [
    "ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libmvec.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1",
    "libresolv.so.2", "libutil.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libanl.so.1", "libgcc_s.so.1",
    "libstdc++.so.6", "libgomp.so.1", "libssl.so.3", "libcrypto.so.3", "libzstd.so.1", "libz.so.1",
]
LIBRARY_FOLDER = "/lib/x86_64-linux-gnu"
MUST = {"ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libgcc_s.so.1"}
PASSWD = """root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
"""


def build_tree(tree, binary, hosts):
    """Creates the root file system of the image."""
    for link in ("lib", "lib64"):
        (tree / "usr" / link).mkdir(parents=True)
        (tree / link).symlink_to(f"usr/{link}")
    for folder in ("usr/local/bin", LIBRARY_FOLDER[1:], "etc/ssl/certs", "tmp", "proc", "dev", "sys",
                   "var/lib/lineshaft", "home/nonroot", "usr/share"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        source = pathlib.Path(LIBRARY_FOLDER, name)
        if source.exists():
            shutil.copy(source, tree / LIBRARY_FOLDER[1:] / name)
        elif name in MUST:
            raise SystemExit(f"{source} not found; the base image is Debian for x86-64")
    shutil.copy(tree / LIBRARY_FOLDER[1:] / "ld-linux-x86-64.so.2", tree / "lib64")
    try:
        # A hard link is safe, because the tree is mounted read-only.
        os.link(binary, tree / "usr/local/bin/lineshaft")
    except OSError:
        shutil.copy(binary, tree / "usr/local/bin/lineshaft")
    (tree / "etc/passwd").write_text(PASSWD)
    (tree / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
    (tree / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost " + " ".join(hosts) + "\n")
    for device in ("null", "zero", "urandom", "random"):
        (tree / "dev" / device).touch()


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(control, 0x8914, request)


def mount_all(tree, mounts):
    mount("--make-rprivate", "/")
    mount("--bind", tree, tree)
    mount("-t", "proc", "proc", f"{tree}/proc")
    for device in ("null", "zero", "urandom", "random"):
        mount("--bind", f"/dev/{device}", f"{tree}/dev/{device}")
    zones = "/usr/share/zoneinfo"
    if pathlib.Path(zones).exists():
        mounts = [[zones, zones, True], *mounts]
    for source, target, read_only in mounts:
        place = pathlib.Path(tree + target)
        if pathlib.Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount("--bind", source, str(place))
        if read_only:
            mount("-o", "remount,bind,ro", str(place))
    mount("-o", "remount,bind,ro", tree)


CAPABILITIES = {"CHOWN": 0, "KILL": 5, "SETGID": 6, "SETUID": 7}


def drop_privileges(user, group, capabilities):
    """Root has the capabilities when it executes a program; another user has none then."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in set(range(64)) - {CAPABILITIES[name] for name in capabilities}:
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; fails for numbers above the last capability
    os.setgroups([group])
    os.setgid(group)
    os.setuid(user)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "no_new_privs")


def main():
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    loopback_up()
    mount_all(spec["tree"], spec["mounts"])
    os.chroot(spec["tree"])
    program = spec.get("program", "/usr/local/bin/lineshaft")
    os.chdir(spec.get("directory", "/var/lib/lineshaft"))
    drop_privileges(spec["user"], spec["group"], spec.get("capabilities", []))
    os.execve(program, [pathlib.Path(program).name, *spec["args"]], spec["env"])


if __name__ == "__main__":
    main()
