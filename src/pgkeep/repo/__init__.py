"""The only room that writes, reads or deletes repository content.

Rules of this room:

1. Packs first, each durable; then the WAL; the manifest last, by conditional create (docs/format/order.md).
2. Nothing is overwritten.  "It exists" is answered by comparing identities, never by trusting the name.
3. Every byte that leaves this room towards a data directory has been verified against its hash.
4. No policy: which backup, which base, which WAL is decided in the rooms above.
"""
