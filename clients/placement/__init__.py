"""OpenStack Placement: claims, and what hosts have to give."""

from clients.placement.answers import GenerationConflict, NoCapacity
from clients.placement.candidates import Allocation, CandidateGroup, CandidateQuery
from clients.placement.client import Claim, ClaimState, Placement, Provider, connect

__all__ = [
    "Allocation", "CandidateGroup", "CandidateQuery", "Claim", "ClaimState", "GenerationConflict", "NoCapacity",
    "Placement", "Provider", "connect",
]  # fmt: skip
