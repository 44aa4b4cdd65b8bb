"""The client/server protocol of MySQL and MariaDB, version 10 (MySQL source documentation, "Client/Server Protocol").

``packets`` are the bytes of either side, ``login`` is the client's side of a session's beginning without a socket,
``talk`` follows a session that passes by without keeping any of it.
"""
