"""What is known about services that many use: where their keys may go, how they are attached, what reads them.

One TOML file each in ``data``; a user's own files have the same form. ``Catalog.load().get("stripe")`` answers

- the services to create (``bindings``), with hosts, paths and injection;
- the environment variables that SDKs and command lines read, and a placeholder of the right shape for them;
- the shape of a key, to notice a wrong paste, and where keys are made;
- a harmless call that shows whether a key works.

Nothing here decides anything: an entry only fills in what ``keyhole add`` would otherwise have to ask for.
"""

from keyhole.catalog.catalog import Catalog
from keyhole.catalog.entry import CatalogEntry, CatalogService
from keyhole.catalog.shape import KeyShape

__all__ = ["Catalog", "CatalogEntry", "CatalogService", "KeyShape"]
