"""An upstream dies under load and comes back: nothing is lost, and one message finds out that it is back."""
