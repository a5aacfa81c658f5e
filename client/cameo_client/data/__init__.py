"""Hospital data in: from a hospital's table to one row of facts a patient, under pseudonyms.

`hospital.load` is the door; everything that reads patient rows lies in this folder and is called from training,
scoring and tags only. Importing this package imports nothing heavy; its modules import polars.
"""
