# For every class attention by its own score, and a linear term.
neck = None
head = dict(
    type='AttentionMultiHeadClsHead', loss=dict(type='PerHeadBCELoss', head_reduction='sum')
)
