"""OpenStack Placement: claims, and what hosts have to give."""

from clients.placement.answers import GenerationConflict, NoCapacity
from clients.placement.client import Claim, ClaimState, Placement, Provider, connect

__all__ = ["Claim", "ClaimState", "GenerationConflict", "NoCapacity", "Placement", "Provider", "connect"]
