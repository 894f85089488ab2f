"""Initialisers: the contract, the registry, the conformance kit, and one short file per method."""
