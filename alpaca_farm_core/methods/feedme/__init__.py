"""Binary FeedME: fine-tuning on the preferred answers."""
