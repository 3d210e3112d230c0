"""Which cloud the host runs in, by what its firmware says (`/sys/class/dmi/id`): nobody is asked over the network.

The firmware strings are those that the providers document for telling their instances apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from streamer.sources.hardware import text

_AZURE_CHASSIS: Final = "7783-7084-3265-9085-8269-3286-77"
"""On every machine of Azure and on no other Hyper-V."""


class Cloud(NamedTuple):
    """The provider, and kind and id of the instance as far as the firmware knows them."""

    provider: str | UnsetType = UNSET
    instance_type: str | UnsetType = UNSET
    instance_id: str | UnsetType = UNSET


def cloud(root: Path) -> Cloud:
    """Where the host runs; nothing for a machine of one's own."""

    def says(name: str) -> str:
        return text(root / "sys/class/dmi/id" / name)

    for found in (_aws(says), _gce(says), _azure(says)):
        if found is not None:
            return found
    return Cloud()


Says = Callable[[str], str]


def _aws(says: Says) -> Cloud | None:
    if says("sys_vendor") == "Amazon EC2":
        instance = says("board_asset_tag")
        return Cloud("AWS", says("product_name") or UNSET, instance if re.fullmatch("i-[0-9a-f]+", instance) else UNSET)
    if says("bios_version").lower().endswith(".amazon"):  # older instances, on Xen
        return Cloud("AWS")
    return None


def _gce(says: Says) -> Cloud | None:
    return Cloud("GCE") if says("product_name") == "Google Compute Engine" else None


def _azure(says: Says) -> Cloud | None:
    return (
        Cloud("Azure", instance_id=says("product_uuid").lower() or UNSET) if says("chassis_asset_tag") == _AZURE_CHASSIS else None
    )
