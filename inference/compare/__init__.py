"""`separator compare`: pretrainings against each other, on separation.

`command` plans the runs and does them; `runs` is one of them, whose stages are processes of the
trainers; `scores` scores it; `statistics` and `report` say what came out.
"""
