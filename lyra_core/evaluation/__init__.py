"""What a model is measured by, on scenes and photographs it never saw: measures, the table and the card of mini."""
