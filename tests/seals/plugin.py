"""A backend as an installed plug-in brings it: it would keep the key in clear."""

from keyring.backend import KeyringBackend


class PlaintextKeyring(KeyringBackend):
    priority = 9
    written = []  # noqa: RUF012  # shared on purpose: nothing may ever be in it

    def get_password(self, service, username):
        return None

    def set_password(self, service, username, password):
        self.written.append(password)

    def delete_password(self, service, username):
        raise NotImplementedError
