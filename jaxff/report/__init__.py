"""Plots and the HTML page of results."""

from jaxff.report.page import Report

__all__ = ["Report"]
