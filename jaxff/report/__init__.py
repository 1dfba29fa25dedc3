"""Plots and HTML pages of results."""

from jaxff.report.page import Report

__all__ = ["Report"]
