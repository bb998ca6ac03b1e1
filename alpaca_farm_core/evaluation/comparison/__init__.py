"""Methods side by side: what each policy costs in KL and reward, and one table over all of them."""
