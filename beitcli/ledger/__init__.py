"""The state of a resumable run: results, features, and the database under them."""
