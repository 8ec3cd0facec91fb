"""What predict.py does: a predictor, and the pipeline from files to files."""
