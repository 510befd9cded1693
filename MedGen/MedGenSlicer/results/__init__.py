"""MRML nodes out: volumes, tables and views."""
