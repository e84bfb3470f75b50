"""The transfer agent: claim what is due, attempt it, settle the outcome."""
