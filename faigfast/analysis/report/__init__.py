"""The report: one page, its sections, figures and tables."""
