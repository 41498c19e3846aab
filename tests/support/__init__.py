"""What tests need to run real servers and real processes, and to clean up after them."""
