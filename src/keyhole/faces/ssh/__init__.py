"""Face: the far end of ``SSH_AUTH_SOCK``. It reads messages and decides nothing."""

from keyhole.faces.ssh.face import SshFace

__all__ = ["SshFace"]
