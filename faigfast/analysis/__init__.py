"""Analyses of the ranked filters: masking, measurements, figures and the report."""
