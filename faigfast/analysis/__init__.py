"""What follows from the ranked filters: masking, measurements, figures and the report."""
