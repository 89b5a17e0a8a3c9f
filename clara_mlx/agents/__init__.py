"""Agents on this machine: connects them to the gateway, checks it, reads their sessions."""
