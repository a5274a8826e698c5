"""`separator scan`: which songs of a music library can be used for training.

`walk` lists audio files, `examination` examines each, in several processes, `index` remembers the
findings in an SQLite file, `musdb_holdout` knows MUSDB18's test songs, `scan` is the command and
`scan_report` its output.
"""
