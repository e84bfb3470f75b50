"""What the replies of each provider and server mean, a table a file. The first rule that matches decides."""
