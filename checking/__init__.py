"""What check_data.py does: looks at pictures, names faults, draws a contact sheet."""
