"""Does a policy that trains on against a reward model still get better? Proxy, judge and gold against KL."""
