"""Shapes of credentials: what a key looks like, whoever's it is. For what is unknown; known values need none of this.

    for match in finder().find(data):
        print(match.shape.name, match.start, match.fingerprint(data))     # never the value

The rules are data (`Shape`): each has examples in which it is found, and counter-examples in which it is not. A rule is
tried only where one of its literals stands, and looks at a bounded part of the text, so that no text costs more than
its size. Order: what says more about a credential comes first.
"""

from .addresses import ADDRESSES
from .assignments import ASSIGNMENTS
from .finder import Finder, Match, finder
from .private_keys import PRIVATE_KEYS
from .services import SERVICES
from .shape import Shape
from .tokens import TOKENS

__all__ = ["SHAPES", "Finder", "Match", "Shape", "finder"]

SHAPES = (*PRIVATE_KEYS, *TOKENS, *SERVICES, *ADDRESSES, *ASSIGNMENTS)
