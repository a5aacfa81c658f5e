"""Flower, from a hospital's side."""

from cameo_protocol.quiet import quiet_flower

quiet_flower()
