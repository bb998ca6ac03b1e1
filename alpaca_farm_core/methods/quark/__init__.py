"""Quantised reward conditioning (Quark)."""
