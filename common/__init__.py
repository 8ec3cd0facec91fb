"""What every script stands on. Imports nothing heavy."""
