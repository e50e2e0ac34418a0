# MultiAttention: every class attends with its own score.
neck = None
head = dict(
    type='AttentionMultiHeadClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum')
)
