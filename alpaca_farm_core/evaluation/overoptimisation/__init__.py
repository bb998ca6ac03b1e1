"""Whether a policy that is trained longer against a reward model still gets better: proxy, judge and gold against KL."""
