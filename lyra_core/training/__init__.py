"""Training of the mini model: its networks, and the loop that all of them share."""
