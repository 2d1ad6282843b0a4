"""What is installed, what works, what does not, and how to fix it."""
