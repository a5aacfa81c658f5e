"""Differential privacy on paper: releases, accounting, calibration, integer noise, statements, the plan's check."""
