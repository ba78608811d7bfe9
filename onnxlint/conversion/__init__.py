"""All targets of one run, and the manifest that tells how they were made."""
