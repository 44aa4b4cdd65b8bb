"""Everything that is asked of a request after its service was found: conditions, limits, approval. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest

# Every command reads services, and few services have checks: what judges them is loaded for those alone.
if TYPE_CHECKING:
    from keyhole.core.checks.approval import Approval
    from keyhole.core.checks.conditions import Condition
    from keyhole.core.checks.limits import Limits

FIELDS = ("conditions", "limits", "approval")
_MOST = 32


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of a service.

    Attributes:
        conditions: each judged where its scope means the request.
        limits: for each agent.
        approvals: which requests a person has to approve: this service's, and those of others that bind the same
            secret to the same destination, so that a second service is no way around the first.
    """

    conditions: tuple[Condition, ...] = ()
    limits: Limits | None = None
    approvals: tuple[Approval, ...] = ()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Checks | None:
        """Read the three fields of a service; ``None`` where it has none of them. Raises ``InvalidRequest``."""
        given = data.get("conditions") or []
        objects = [given] if isinstance(given, Mapping) else given
        if not isinstance(objects, list | tuple) or len(objects) > _MOST:
            raise InvalidRequest(f"conditions are an object, or a list of at most {_MOST} objects")
        if not (objects or data.get("limits") or data.get("approval")):
            return None
        from keyhole.core.checks.approval import Approval  # noqa: PLC0415 - as said above
        from keyhole.core.checks.conditions import Condition  # noqa: PLC0415
        from keyhole.core.checks.limits import Limits  # noqa: PLC0415

        limits = Limits.from_data(data["limits"]) if data.get("limits") else None
        approval = Approval.from_data(data["approval"]) if data.get("approval") else None
        conditions = tuple(Condition.from_data(each) for each in objects)
        return cls(conditions, limits, (approval,) if approval else ())

    def as_data(self) -> dict[str, Any]:
        """The fields that are set, JSON-ready."""
        return {
            **({"conditions": [each.as_data() for each in self.conditions]} if self.conditions else {}),
            **({"limits": self.limits.as_data()} if self.limits else {}),
            **({"approval": self.approvals[0].as_data()} if self.approvals else {}),
        }

    def require_usable(self) -> None:
        """Raises ``InvalidRequest`` for what this machine could not judge."""
        for condition in self.conditions:
            condition.require_known_zones()

    def describe(self, method: str, paths: tuple[str, ...]) -> list[str]:
        """What is asked of such a request, in words, one line each."""
        lines = [line for each in self.conditions if each.scope.means(method, paths) for line in each.describe()]
        lines += self.limits.describe() if self.limits else []
        return lines + [each.describe() for each in self.approvals if each.scope.means(method, paths)]

    def lines(self) -> list[str]:
        """Everything that is asked of some request, in words, one line each."""
        found = [line for each in self.conditions for line in each.describe()]
        found += self.limits.describe() if self.limits else []
        return found + [each.describe() for each in self.approvals]
