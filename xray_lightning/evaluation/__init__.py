"""Metrics, figures and tables of results."""
