"""What left the site: copies of the devices' ledgers, and the portal's own."""
