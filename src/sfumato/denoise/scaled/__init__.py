"""Networks made denoisers: what they see and say is scaled."""
