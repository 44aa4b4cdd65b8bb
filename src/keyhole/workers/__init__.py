"""One server as several processes: a parent, and workers that serve the same ports over the same store.

1. The parent reserves the ports, starts each worker as a fresh interpreter, and starts another one in the place of a
   worker that ends. It serves nobody, opens no store, and reads nothing but what its workers tell it.
2. A worker is a node like any other. The kernel spreads connections over the workers (``SO_REUSEPORT``); all accept on
   the one socket that lies at a path.
3. The first worker opens the vault. Its root key comes to the parent and from there to all others through socket pairs
   that were inherited, so it lies in the memory of these processes and nowhere else. The parent keeps it as long as the
   vault is open, for those that it starts later, and forgets it when the vault is sealed.
4. What takes several requests until it is done (shares that are entered, a rekey, a capture) is held by one worker, the
   first that lives; the others pass such requests on to it.
5. Rates, calls under way and failed logins are counted in memory that all workers share.
6. Whoever loses the parent ends at once, and the vault with it is closed.
"""
