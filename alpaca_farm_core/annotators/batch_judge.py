class BatchJudge:
    pass
