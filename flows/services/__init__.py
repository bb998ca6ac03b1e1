"""The services behind `alpaca-farm up`: Prefect's server, its workers, and what is registered with them."""
