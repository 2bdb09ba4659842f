"""The site's database: tables, sealing, and one function per thing that happens."""
