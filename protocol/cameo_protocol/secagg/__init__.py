"""The secure sum: the coordinator gets the sum of the hospitals' integer vectors, and nothing else.

Epoch SecAgg: Bonawitz et al. (CCS 2017), double masking with the consistency check, its key and share stages
done once for R rounds with independent keys for every round. Described in docs/secure-sum.md.

params        what an epoch and a round agree on          encoding   numbers <-> masked lanes
client_setup  a hospital: advertise, share, ready          client_round   upload, acknowledge, reveal
server_setup  the coordinator: adverts, shares, readies    server_round   uploads, acks, reveals, the sum
messages      what travels, signed                         kernel, shamir, kdf, keys   the arithmetic below
"""
