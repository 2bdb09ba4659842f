"""What browsers and scripts may ask for over HTTP."""
