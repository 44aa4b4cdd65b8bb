"""Sessions with databases: a use of a service, with a stream of the database's own protocol after its login.

``sessions`` is the road's order, ``upstream`` the connection to the database and the login, ``stream`` what passes by
afterwards.
"""
