"""What evaluate.py does: metrics, scores, folders of mattes, the report."""
