"""Which backups and which WAL stay, and why: the policy, the plan, and carrying it out.

Rules of this room:

1. `plan` is pure: facts in, a frozen plan out, with every reason why a backup stays.  `prune --dry-run`, `prune`,
   `list` and the tests look at the same plan.
2. Nothing is deleted that no written policy asks for; what cannot be read is never deleted, and never counts.
3. A backup that stays has the WAL that makes it consistent; the WAL window has a backup at its beginning.
4. Deleting itself is `repo`'s; here is its order: manifests, then the WAL that only they needed, then the sweep.

Import from the modules: `policy` (the configuration's line), `facts` (what the plan looks at), `gather` (reads them),
`plan`, `carry`.
"""
