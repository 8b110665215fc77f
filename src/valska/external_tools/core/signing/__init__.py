"""Signatures of archives and receipts: SSH keys, over an in-toto statement with provenance."""
