"""Measurements that back what the documentation claims; every figure comes with the command that prints it."""
