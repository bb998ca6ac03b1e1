"""Binary reward conditioning: answers learnt behind a good or a bad token, and asked for behind the good one."""
