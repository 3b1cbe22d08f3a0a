"""Peers that aimd is measured beside, each behind one small face."""
