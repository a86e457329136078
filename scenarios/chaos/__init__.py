"""Faults for real processes, real sockets and real disks."""
