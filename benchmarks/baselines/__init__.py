"""What people use today, to measure talkface against."""
