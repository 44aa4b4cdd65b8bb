"""Keys made by ssh-keygen, and a real SSH server on loopback that trusts an authority."""

import getpass
import shutil
import socket
import subprocess
from pathlib import Path


def key_pair(folder, kind="ed25519", name=""):
    """Path of a private key, and the line of its public one."""
    file = folder / (name or f"key-{kind}")
    bits = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "me@here", "-f", file], check=True)
    return file, file.with_suffix(".pub").read_text()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """``sshd`` for the user of this process, which takes certificates of one authority and nothing else."""

    def __init__(self, folder, trusted):
        self.folder = folder / "sshd"
        self.folder.mkdir()
        self.port = free_port()
        private, self.host_key = key_pair(self.folder, "ed25519", "host")
        (self.folder / "trusted").write_text(trusted)
        (self.folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {private}\nHostCertificate {private}-cert.pub\n"
            f"TrustedUserCAKeys {self.folder}/trusted\nAuthorizedKeysFile none\nPasswordAuthentication no\n"
            f"PidFile none\nUsePAM no\nStrictModes no\nLogLevel VERBOSE\nPermitRootLogin prohibit-password\n"
        )
        self._process = None

    def __enter__(self):
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before it knows who comes
        self._start()
        return self

    def __exit__(self, *_):
        self._stop()

    def _start(self):
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
        command = [program, "-D", "-f", self.folder / "config", "-E", self.folder / "log"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while "Server listening" not in self.log():
            assert self._process.poll() is None, self.log()
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue

    def _stop(self):
        self._process.terminate()
        self._process.wait()

    def log(self):
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def certify(self, line):
        """Let the host show a certificate from now on."""
        (self.folder / "host-cert.pub").write_text(line)
        self._stop()
        (self.folder / "log").unlink()
        self._start()

    def log_in(self, private, host="", authority=""):
        """Log in and say hello; with an authority, only if the host has a certificate of that for this name."""
        known = self.folder / "known"
        known.write_text(
            f"@cert-authority {host} {authority}" if authority else f"[127.0.0.1]:{self.port} {self.host_key}"
        )
        options = [
            "-F",
            "none",
            "-o",
            f"UserKnownHostsFile={known}",
            "-o",
            "GlobalKnownHostsFile=none",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]
        if host:
            options += ["-o", f"HostKeyAlias={host}"]
        return subprocess.run(
            ["ssh", *options, "-i", private, "-p", str(self.port), "127.0.0.1", "echo hello"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
