"""`separator compare`: compare pretrainings by the separation that they lead to.

`config` is what the user gives, `planning` makes `runs` of it, `execution` does them in
`children` (processes), `scores` scores each one, and `comparison_report` computes the report with
the statistics of `intervals`.
"""
